"""GridRaid as a gymnasium.vector.VectorEnv: all games in array operations, bit for bit those of GridRaidEnv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.boards import Boards
from policykd_envs.grid_raid.canvas import Canvas
from policykd_envs.grid_raid.generator import expand
from policykd_envs.grid_raid.levels import Bools, Cells, Pool, Supply
from policykd_envs.grid_raid.picture import draw
from policykd_envs.grid_raid.single import FPS, action_space, check_levels, check_render_mode, observation_space

Images = NDArray[np.uint8]
Infos = dict[str, Any]


class GridRaidVectorEnv(VectorEnv[Images, NDArray[Any], NDArray[Any]]):
    """N games of GridRaid. A game that ended begins anew with the next step, whose action it ignores and whose reward
    is 0, as Gymnasium's own vector environments do (AutoresetMode.NEXT_STEP).

    `reset(seed=s)` gives game i the seed s + i; later episodes continue each game's own generator. `levels` as in
    `GridRaidEnv`.
    """

    metadata = {  # noqa: RUF012  # gymnasium declares it so
        "render_modes": ["rgb_array"],
        "render_fps": FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = rules.TURNS,
        render_mode: str | None = None,
        multi: bool = False,
        levels: int | None = None,
    ) -> None:
        check_render_mode(render_mode, ["rgb_array"])
        check_levels(levels)
        if num_envs < 1:
            raise ValueError(f"GridRaid: num_envs is {num_envs}, expected at least 1")
        self.num_envs = num_envs
        self.max_episode_steps = min(max_episode_steps, rules.TURNS)
        self.render_mode = render_mode
        self.multi, self.levels = multi, levels
        self.single_observation_space = observation_space()
        self.single_action_space = action_space(multi)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._every = np.arange(num_envs)
        self._boards = Boards(num_envs)
        self._canvas = Canvas(self._boards)
        self._supply: Supply | Pool | None = None
        self._ended = np.zeros(num_envs, np.bool_)
        self._legal: Bools | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, Infos]:
        """New levels for all games. A list gives each game its own seed; None continues the generator it has.
        ValueError where the list has another length."""
        super().reset(seed=seed if isinstance(seed, int) else None, options=options)
        if self._supply is None:
            first = int(self.np_random.integers(2**32))
            states = np.array([expand(first + slot) for slot in range(self.num_envs)], np.uint32)
            self._supply = Supply(states) if self.levels is None else Pool(states, self.levels)
        seeds = _seeds(seed, self.num_envs)
        given = np.array([slot for slot, value in enumerate(seeds) if value is not None], np.intp)
        self._supply.reseed(given, np.array([expand(value) for value in seeds if value is not None], np.uint32))
        self._supply.take(self._every, self._boards.levels)
        self._boards.begin(self._every)
        self._ended[:] = False
        self._legal = None
        self._canvas.draw([], self._every)
        return self._canvas.images.copy(), self._infos(np.zeros(self.num_envs, np.bool_))

    def step(self, actions: NDArray[Any]) -> tuple[Images, NDArray[Any], Bools, Bools, Infos]:
        """One turn of every game: pictures [N, 36, 36, 3], rewards, terminated and truncated [N]."""
        if self._supply is None:
            raise ResetNeeded("GridRaid: step() without running episodes: call reset() first")
        choice, allowed, acts = self._read(np.asarray(actions))
        live = ~self._ended
        turns = self._boards.play(choice, acts & live, allowed, live)
        terminated = (turns.left | turns.caught) & live
        truncated = (self._boards.turn >= self.max_episode_steps) & live
        rewards = turns.reward * live * rules.UNIT
        ended = np.flatnonzero(self._ended)
        if ended.size:
            self._supply.take(ended, self._boards.levels)
            self._boards.begin(ended)
        self._canvas.draw(turns.changed, ended)
        self._ended = terminated | truncated
        self._legal = None
        return self._canvas.images.copy(), rewards, terminated, truncated, self._infos(turns.left & live)

    def action_masks(self) -> Bools:
        """What is allowed now: [N, 13], or [N, 5 + 3] where each branch counts on its own."""
        if self._supply is None:
            raise ResetNeeded("GridRaid: action_masks() without episodes: call reset() first")
        legal = self._legal_now()
        return np.ascontiguousarray((_branch_masks(legal) if self.multi else legal).T)

    def render(self) -> tuple[Images, ...] | None:
        """A picture [480, 480, 3] of each board where render_mode is rgb_array."""
        if self._supply is None:
            raise ResetNeeded("GridRaid: render() without episodes: call reset() first")
        if self.render_mode is None:
            return None
        codes = self._canvas.codes(self._every)
        return tuple(draw(board, int(turn)) for board, turn in zip(codes, self._boards.turn, strict=True))

    def _legal_now(self) -> Bools:
        if self._legal is None:
            self._legal = self._boards.legal()
        return self._legal

    def _read(self, actions: NDArray[Any]) -> tuple[Cells, Bools, Bools]:
        """Actions as some of 13, whether the masks allow them, and whether they can be done."""
        shape, limits = self.action_space.shape, rules.BRANCHES if self.multi else rules.N_ACTIONS
        if actions.shape != shape or actions.dtype.kind not in "iu" or (actions < 0).any() or (actions >= limits).any():
            raise InvalidAction(f"GridRaid: {actions!r} is no action of {self.action_space}; take one that it contains")
        if not self.multi:
            choice = actions.astype(np.intp)
            allowed = self._boards.allowed(choice) if self._legal is None else self._legal[choice, self._every]
            return choice, allowed, allowed
        legal = self._legal_now()
        direction, tool = actions[:, 0], actions[:, 1]
        masks = _branch_masks(legal)
        choice = np.where(direction == 0, rules.WAIT, 4 * tool + direction)
        allowed = masks[direction, self._every] & masks[rules.BRANCHES[0] + tool, self._every]
        return choice, allowed, allowed & legal[choice, self._every]

    @staticmethod
    def _infos(success: Bools) -> Infos:
        return {"is_success": success, "_is_success": np.ones(len(success), np.bool_)}


def _branch_masks(legal: Bools) -> Bools:
    """[13, N] as [5 + 3, N]: a direction is allowed with some tool, a tool in some direction, staying and walking
    always (Game.legal_pair)."""
    tools = legal[1:].reshape(3, 4, -1)
    masks = np.ones((sum(rules.BRANCHES), legal.shape[1]), np.bool_)
    masks[1:5] = tools.any(axis=0)
    masks[6:] = tools[1:].any(axis=1)
    return masks


def _seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    if seed is None:
        return [None] * count
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + slot for slot in range(count)]
    if len(seed) != count:
        raise ValueError(f"GridRaid: {len(seed)} seeds for {count} games; give one for each, or one number")
    return [None if value is None else int(value) for value in seed]
