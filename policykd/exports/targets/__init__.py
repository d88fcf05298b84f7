"""The targets: each is one module with `check`, `write` and `load`, listed in `policykd.exports.targets.table`."""
