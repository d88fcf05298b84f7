"use strict";
// Tables sort by a click (or Enter, Space) on a header: numbers by value, text by text, empty cells last either way.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value;
  if (text === undefined) return null;
  return cell.dataset.kind === "number" ? Number(text) : text;
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en");
}
function sort(table, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  const column = header.cellIndex;
  const rows = Array.from(table.tBodies[0].rows);
  const place = new Map(rows.map((row, index) => [row, index]));
  rows.sort((one, other) => {
    const a = valueOf(one, column), b = valueOf(other, column);
    if (a === null || b === null) return (a === null) - (b === null) || place.get(one) - place.get(other);
    return (descending ? compare(b, a) : compare(a, b)) || place.get(one) - place.get(other);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sort(table, header));
  }
  for (const row of table.tBodies[0].rows) {
    const mark = document.getElementById("frontier-" + row.id);
    if (mark === null) continue;
    row.addEventListener("pointerenter", () => mark.classList.add("lit"));
    row.addEventListener("pointerleave", () => mark.classList.remove("lit"));
    mark.addEventListener("pointerenter", () => { row.style.background = "var(--lit)"; });
    mark.addEventListener("pointerleave", () => { row.style.background = ""; });
  }
}
