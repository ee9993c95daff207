# %% [markdown]
# # 04b · Watch it, kill it, go on
#
# **The question.** A real run lasts hours. You want to see how it goes, and the power may fail.
# What must be written down so that you can watch a run, and go on with it as if nothing had
# happened?
#
# **By the end you can**
# - *watch* a run in TensorBoard, and say when it should stop;
# - *save* a run so that a killed one can go on;
# - *diagnose* from two logs what a resumed run had lost.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapter 04 | CPU, no network | about 20 s | 3, about 30 minutes | A7 B11 |

# %% tags=["setup"]
import copy
import json
import random
import signal
import statistics
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing import assert_close

from sft_lab import atlas, plots
from sft_lab.course.checks import check
from sft_lab.course.resume_runs import resumed_run

# %% tags=["setup"]
from sft_lab.course.views.training import draw_events, draw_resume, draw_state, open_tensorboard
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.significance import judge_claim
from sft_lab.train import History, train

plots.style()
base, tokenizer = load("atlas-base", dtype=torch.float32)
facts = atlas.split(atlas.load_facts())
folder = tempfile.TemporaryDirectory()  # deleted when the kernel ends
runs = Path(folder.name)


def encode_facts(part: list, count: int, seed: int) -> list:
    """`count` facts, drawn and phrased as questions by `seed`, as encoded examples."""
    drawn = random.Random(seed).sample(part, count)
    return encode_conversations(atlas.ask(drawn, seed=seed), tokenizer)


# %% [markdown]
# ## 1 · Watch it
#
# **TensorBoard** is a page that draws the numbers of a run while it runs. It reads **events**: each
# is a name, such as `train/loss`, a step and a number. `train` writes them into the folder
# `log_dir`. We log a run on 24 facts about entities that the base never read about,
# eight times over (chapter 04, section 5).

# %%
names = sorted({fact.entity for fact in facts["unknown"]})
ours = set(names[: len(names) // 2])
mine = encode_facts([fact for fact in facts["unknown"] if fact.entity in ours], 24, seed=0)
others = encode_facts([fact for fact in facts["unknown"] if fact.entity not in ours], 40, seed=0)
settings = {"epochs": 8, "batch_size": 8, "learning_rate": 4e-3}
history = train(
    copy.deepcopy(base), tokenizer, mine, eval_examples=others, log_dir=runs / "logs", **settings
)

# %%
events = EventAccumulator(str(runs / "logs")).Reload()
print("logged:", ", ".join(sorted(events.Tags()["scalars"])))
assert_close([event.value for event in events.Scalars("train/loss")], history.losses)
judged = [row["loss"] for row in history.evaluations]
assert_close([event.value for event in events.Scalars("eval/loss")], judged)

# %% [markdown]
# The next cell opens TensorBoard here. The kernel serves it on a free port of this machine, until
# the kernel ends. In a terminal, the command is `tensorboard --logdir FOLDER`. If JupyterLab runs
# on another machine, forward the port as well. Without a kernel you see the two curves, drawn from
# the same events.
#
# **Predict.** Where does `eval/loss` end: near `train/loss`, or far above it? And has it risen by
# then?

# %% tags=["predict"]
open_tensorboard(runs / "logs", draw_events(events))
assert history.losses[-1] < 0.5 < 1.0 < judged[-1]
assert judged[-1] > 1.05 * min(judged)

# %% [markdown]
# **Read.** Far above it, and it has risen from its lowest. This gap is the over-fitting. It opens
# while `train/loss` still falls, so watch `eval/loss`. **Early stopping** keeps the weights of the
# best epoch. It ends the run when `eval/loss` has had no new lowest for some epochs, the
# *patience*.

# %% [markdown] tags=["exercise"]
# ### Exercise 4b.1 · When to stop · 6 min · ●●○
# Validation losses arrive one epoch at a time. Training ends at the first epoch that is the
# `patience`-th in a row without a new lowest loss, or with the list. Return the index of the best
# epoch seen **by then** and the index of the last epoch run. An equal loss is no new lowest.
#
# `[3.0, 2.0, 2.5, 2.4, 1.0]` with patience 2: the best epoch is 1, the last one run is 3. The 1.0
# is never seen.


# %% tags=["stub"]
def early_stop(losses: list[float], patience: int) -> tuple[int, int]:
    """Return (index of the best epoch, index of the last epoch run), counted from 0."""
    raise NotImplementedError


# %% tags=["solution"]
def early_stop(losses: list[float], patience: int) -> tuple[int, int]:
    """Return (index of the best epoch, index of the last epoch run), counted from 0."""
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses) - 1


# %% tags=["check"]
check("4b.1", early_stop)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Remember only the best epoch so far. The patience is used up when
# this epoch lies `patience` epochs behind.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `losses.index(min(losses))`, which looks into epochs that were never run; counting
# rises against the epoch before instead of the best.

# %% [markdown]
# ## 2 · Kill it
#
# What does a run consist of between two steps? Four things, and the next step needs all of them. (A
# *buffer* is a tensor of the model that is saved but not trained.)

# %%
_ = draw_state()

# %% [markdown]
# A **checkpoint** is a folder with all of this. `train` writes one every `checkpoint_every` steps
# into `output_dir`; with `resume=True` it goes on from the last one. We interrupt two runs of 12
# steps. One gets the signal of Ctrl-C in step 5. The other crashes in step 11, and its last
# checkpoint is that of step 8.
#
# **Predict.** How do the losses of the resumed runs compare with those of an unbroken run: equal to
# the last bit, close, or clearly different?


# %%
def in_step(number: int, action):
    """Call `action` in the optimizer step of that number, from now on; `.remove()` ends it."""
    seen = []

    def hook(*_):
        seen.append(number)
        if len(seen) == number:
            action()

    return register_optimizer_step_post_hook(hook)


def crash():
    raise RuntimeError("power cut")


# %%
def short_run(**settings) -> History:
    """12 steps with a checkpoint every 4."""
    model = copy.deepcopy(base)
    settings = {"epochs": 2, "batch_size": 4, "checkpoint_every": 4, **settings}
    return train(model, tokenizer, mine, **settings)


def interrupt(name: str, number: int, action) -> None:
    """Begin a run that `action` ends in the step of that number."""
    hook = in_step(number, action)
    try:
        short_run(output_dir=runs / name)
    except (KeyboardInterrupt, RuntimeError) as reason:
        print(f"{type(reason).__name__}: {str(reason).split(';')[0]}")
    hook.remove()


# %% tags=["predict"]
unbroken, resumed = short_run(), {}
interrupt("stopped", 5, lambda: signal.raise_signal(signal.SIGINT))
interrupt("crashed", 11, crash)
for name in ("stopped", "crashed"):
    resumed[name] = short_run(output_dir=runs / name, resume=True).losses
    apart = max(abs(a - b) for a, b in zip(resumed[name], unbroken.losses, strict=True))
    print(f"{name}: {len(resumed[name])} losses, at most {apart} nats from the unbroken run's")
assert resumed["stopped"] == resumed["crashed"] == unbroken.losses

# %% [markdown]
# **Read.** Equal to the last bit. At Ctrl-C, `train` finishes the step and writes a checkpoint.
# After the crash, the steps since the last checkpoint are run again.

# %% [markdown] tags=["exercise"]
# ### Exercise 4b.2 · Save what the run needs · 14 min · ●●●
# Write a checkpoint of your own. The check trains a small network, saves it, and throws it away. A
# fresh network (other weights) and a fresh optimizer load your files and go on. **The weights must
# equal those of an unbroken run, to the last bit.**
#
# - `Checkpoint(folder)`: a `Path` that may not exist yet, nor its parents. The object that loads is
#   another one than the object that saved.
# - `save(model, optimizer, step)`: everything in `model.state_dict()` (weights, frozen weights and
#   buffers), the optimizer's state and the number of steps done, an int. A later `save` replaces
#   the earlier one.
# - `load(model, optimizer)`: puts all of it into these two objects and returns the number of steps.
# - Files in `folder` end in `.safetensors` or `.json`, and are what they say. A pickle file, which
#   `torch.save` writes, runs code when it is opened.
#
# The optimizer is an AdamW over `model.parameters()`. `optimizer.state[weight]` is a dict of the
# tensors `step`, `exp_avg` and `exp_avg_sq`. A frozen weight has none. Its learning rate need not
# be saved. `save_file(tensors, path)` and `load_file(path)` write and read a dict of tensors by
# name.


# %% tags=["stub"]
class Checkpoint:
    """A run on disk, in safetensors and JSON."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        raise NotImplementedError

    def load(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        raise NotImplementedError


# %% tags=["solution"]
class Checkpoint:
    """A run on disk, in safetensors and JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        averages = {}
        for name, weight in model.named_parameters():
            for key, tensor in optimizer.state.get(weight, {}).items():
                averages[f"{name}|{key}"] = tensor
        save_file(model.state_dict(), self.folder / "model.safetensors")
        save_file(averages, self.folder / "optimizer.safetensors")
        (self.folder / "step.json").write_text(json.dumps(step))

    def load(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        model.load_state_dict(load_file(self.folder / "model.safetensors"))
        weights = dict(model.named_parameters())
        for path, tensor in load_file(self.folder / "optimizer.safetensors").items():
            name, key = path.split("|")
            optimizer.state[weights[name]][key] = tensor
        return json.loads((self.folder / "step.json").read_text())


# %% tags=["check"]
check("4b.2", Checkpoint)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Safetensors holds one flat dict of names and tensors. A name such
# as `"0.weight|exp_avg"` says whose average it is.</details>

# %% [markdown] tags=["explanation"]
# If the run is killed while it saves, some of the files are new and some old. So `train` writes
# them into a new folder, and renames it when all are there.
#
# Usual mistakes: weights alone; the step count of AdamW forgotten, so that the correction of its
# means (the hats of chapter 04) begins anew; `torch.save`.

# %% [markdown]
# ## 3 · What a resume can lose
#
# Many scripts save the weights alone. The resumed run then has new AdamW averages, all zero. A
# **sign step** follows, like the first step in chapter 04, section 1: almost every weight moves by
# the whole learning rate.
#
# **Claim**, with five seeds: without its averages, the first update after the resume is larger.
# Primary measure: the mean distance that a weight moves in that step, with the learning rate as
# unit. Second measure: the mean loss of the five steps after it. The word for each is that of
# exercise 3b.3.
#
# **Predict.** Will the loss curve show that the averages are gone?

# %%
runs_of = {"nothing": [], "averages": []}
for seed in range(5):
    examples = encode_facts(facts["train"], 160, seed)
    for lost, found in runs_of.items():
        found.append(
            resumed_run(
                base, examples, tokenizer.pad_token_id, lost=lost, cut=12, steps=20, seed=seed
            )
        )

# %% tags=["predict"]
_ = draw_resume(runs_of, cut=12)
moved = {lost: [run[12]["moved"] for run in found] for lost, found in runs_of.items()}
after = {
    lost: [statistics.mean(one["loss"] for one in run[13:18]) for run in found]
    for lost, found in runs_of.items()
}
words = {}
for name, measure in {"first update": moved, "loss of five steps": after}.items():
    words[name] = judge_claim(measure["nothing"], measure["averages"], claim="higher").word
    means = [statistics.mean(values) for values in measure.values()]
    print(f"{name:18} {means[0]:.2f} → {means[1]:.2f}: {words[name]}")
assert list(words.values()) == ["held", "not shown"]
assert min(moved["averages"]) > 0.9 > 0.5 > max(moved["nothing"])

# %% [markdown]
# **Read.** Without the averages, the first update grows from about a third of a learning rate to
# almost a whole one: *held*. For the loss of the next five steps no difference is shown: *not
# shown*. At this rate one step of full size does little harm. Nearer to the rate that breaks the
# model (chapter 04, section 2) it may do more. So compare a resumed run with an unbroken one, step
# by step, and do not judge it by its curve alone.

# %% [markdown] tags=["exercise"]
# ### Exercise 4b.3 · What was lost? · 10 min · ●●○
# Two logs of one run: `unbroken`, and `resumed`, which was killed before step `cut` (counted from
# 0) and went on. Each is a list of one dict a step: `"loss"`, measured before the step's update;
# `"rate"`; and `"rows"`, the numbers of its examples in order. Up to step `cut - 1` both are equal.
# The resumed run lost at most one thing. Return the word for it:
#
# - `"weights"`: those before training came back;
# - `"averages"`: AdamW's began at 0;
# - `"schedule"`: the rates began anew, as from step 0;
# - `"order"`: the rows of the first steps came again;
# - `"nothing"`.
#
# What was not lost is the same in both. Losses that differ by less than 1e-5 are equal. At least
# four steps follow the cut, and the peak rate is high enough for every fault to show in the losses.
#
# An example: rates and rows are equal, the losses too up to and including step `cut`, and later
# ones differ. That is `"averages"`.


# %% tags=["stub"]
def what_was_lost(unbroken: list[dict], resumed: list[dict], cut: int) -> str:
    """Return "weights", "averages", "schedule", "order" or "nothing"."""
    raise NotImplementedError


# %% tags=["solution"]
def what_was_lost(unbroken: list[dict], resumed: list[dict], cut: int) -> str:
    """Return "weights", "averages", "schedule", "order" or "nothing"."""
    pairs = list(zip(unbroken[cut:], resumed[cut:], strict=True))
    if any(one["rate"] != other["rate"] for one, other in pairs):
        return "schedule"
    if any(one["rows"] != other["rows"] for one, other in pairs):
        return "order"
    gaps = [abs(one["loss"] - other["loss"]) for one, other in pairs]
    if gaps[0] > 1e-5:
        return "weights"
    return "averages" if max(gaps) > 1e-5 else "nothing"


# %% tags=["check"]
check("4b.3", what_was_lost)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which of the five can change the loss of step `cut` itself?
# It is measured before the update.</details>

# %% [markdown] tags=["explanation"]
# Other rows and other rates change the losses too, so ask for them first. Usual mistake: lost
# weights taken for lost averages.

# %% [markdown]
# ## What to remember
#
# - The gap between `train/loss` and `eval/loss` is the over-fitting; stop by `eval/loss`.
# - Between two steps a run is its weights, AdamW's averages, its place in the schedule and its
#   place in the order of the rows. Where there is dropout (random zeros in training), the random
#   state belongs to it too.
# - Save all of it, in safetensors and JSON. Compare a resumed run with an unbroken one.
# - A resume without averages begins with a sign step. The loss curve may not show it.
#
# ## Sources
#
# - L. Prechelt, *Early Stopping – But When?*, 1998.
# - D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015.
# - [TensorBoard](https://www.tensorflow.org/tensorboard) and
#   [safetensors](https://huggingface.co/docs/safetensors).
#
# <details><summary>中文要点</summary>
#
# 1. **TensorBoard** 显示 `train/loss` 与 `eval/loss`；两者之差就是**过拟合**。按验证损失**早停**，
#    保留最好的权重。
# 2. **检查点（checkpoint）**要保存：权重（含冻结的权重与缓冲区）、AdamW 的滑动平均、步数、数据顺序；
#    只用 safetensors 与 JSON，不用 pickle。
# 3. 正确恢复的运行与未中断的运行逐位相同。丢掉 AdamW 的平均值，第一步会变成“符号步”，
#    而损失曲线可能看不出来。
#
# </details>
