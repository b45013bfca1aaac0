"""The searched space: sane by construction, from the marks of the spec, and never what would spoil a comparison."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from oneformer import cli
from oneformer.automl.dimension import Dimension
from oneformer.automl.refused import NEVER, why_not
from oneformer.automl.space import Space, mark_of, space_of
from oneformer.errors import UserError, UserErrors
from oneformer.spec.load import load_spec
from oneformer.spec.rules import faults
from oneformer.spec.tree import get, leaves, sections

LONG = "automl.tier=2"
DRAWS = 100_000


def space(*words: str) -> Space:
    return space_of(load_spec(None, ["preset=swin_t", *words], action="automl space"))


def names(found: Space) -> set[str]:
    return {d.key for d in found.dimensions}


def drawn(dimension: Dimension, count: int = DRAWS) -> np.ndarray:
    places = np.random.default_rng(7).random(count)
    return np.array([dimension.at(float(p)) for p in (*places, 0.0, 1.0)])


def test_the_default_is_the_few_that_matter() -> None:
    short = {
        "train.optim.lr", "train.optim.backbone_multiplier", "train.optim.weight_decay",
        "model.backbone.swin.drop_path_rate", "dataset.min_scale", "dataset.max_scale",
    }  # fmt: skip
    assert names(space()) == short
    assert short < names(space("automl.max_trials=40")) == names(space(LONG))
    assert "model.one_former.num_object_queries" not in names(space(LONG))


@pytest.mark.parametrize(
    ("draws", "words"),
    [
        (DRAWS, (LONG,)),
        (2000, (LONG, "dataset.train.batch_size=64")),
        (2000, (LONG, "preset=nano")),
        (2000, (LONG, "preset=r50")),
    ],
)
def test_a_hundred_thousand_draws_are_sane(draws: int, words: tuple[str, ...]) -> None:
    found = space(*words)
    assert names(found) & {"train.optim.lr", "train.optim.weight_decay"}
    for dimension in found.dimensions:
        if dimension.kind == "choice":
            assert dimension.own in dimension.choices
            continue
        values = drawn(dimension, draws)
        assert np.isfinite(values).all()
        assert values.min() >= dimension.low and values.max() <= dimension.high
        assert values.min() == dimension.low and values.max() == dimension.high  # the ends can be had
        assert dimension.low <= dimension.own <= dimension.high
    by_key = {d.key: drawn(d, 2000) for d in found.dimensions if d.kind != "choice"}
    assert by_key["dataset.min_scale"].max() < by_key["dataset.max_scale"].min()


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_half_of_the_learning_rates_are_within_a_decade_of_the_recipe(batch: int) -> None:
    dimension = next(d for d in space(f"dataset.train.batch_size={batch}").dimensions if d.key == "train.optim.lr")
    recipe = 1e-4 * math.sqrt(batch / 16)
    assert np.mean(np.abs(np.log10(drawn(dimension, 10_000) / recipe)) <= 1) >= 0.5


def test_a_learning_rate_of_the_users_is_the_middle_of_its_range() -> None:
    dimension = next(d for d in space("train.optim.lr=3e-3").dimensions if d.key == "train.optim.lr")
    assert math.sqrt(dimension.low * dimension.high) == pytest.approx(3e-3)


def test_drawn_specs_break_no_rule_and_ties_hold() -> None:
    spec = load_spec(
        None, ["preset=swin_t", "automl.parameters=[model.one_former.hidden_dim,train.optim.lr]"], action="a"
    )
    found, rng = space_of(spec), np.random.default_rng(0)
    for _ in range(50):
        changed = found.applied(spec, found.draw(rng.random))
        assert not list(faults(changed))
        assert changed.model.one_former.hidden_dim == changed.model.sem_seg_head.mask_dim
        assert changed.model.one_former.hidden_dim == changed.model.text_encoder.width
    assert found.applied(spec, found.own()) == spec


def test_conditions_leave_keys_out_and_say_why() -> None:
    frozen = space("train.freeze=[backbone]")
    assert frozen.left_out["train.optim.backbone_multiplier"] == "train.freeze is ['backbone']"
    assert "dataset.min_scale" not in names(space("dataset.augmentation.train_resize=shortest_edge"))
    assert "model.backbone.swin.drop_path_rate" not in names(space("model.backbone.name=resnet50"))
    for leaf in leaves().values():
        if (mark := mark_of(leaf)) and mark.when:
            assert get(load_spec(None, ["preset=nano"], action="a"), mark.when.split("=")[0].rstrip("!")) is not None


def test_ranges_of_the_users() -> None:
    ranges = (
        "automl.ranges={train.optim.lr: {valid_min: 1e-3, valid_max: 1e-2, scale: linear}, train.ema.enabled: "
        "{valid_options: [true, false], option_weights: [3, 1]}, model.one_former.dec_layers: {valid_min: 3, valid_max: 5}}"
    )
    found = {d.key: d for d in space(ranges).dimensions}
    lr, ema, layers = (found[k] for k in ("train.optim.lr", "train.ema.enabled", "model.one_former.dec_layers"))
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-2, False)  # its own value is always inside
    assert np.mean(drawn(ema, 20_000)) == pytest.approx(0.75, abs=0.01)
    values, counts = np.unique(drawn(layers, 20_000), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7, 8, 9, 10][: len(values)] and counts.min() > 0.9 * counts.max()


def test_a_list_takes_the_place_of_the_default() -> None:
    assert names(space("automl.parameters=[train.optim.lr,train.ema.enabled]")) == {
        "train.optim.lr",
        "train.ema.enabled",
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("automl.parameters=[train.optim.lrr]", "did you mean train.optim.lr"),
        ("automl.parameters=[train.optim.power]", "valid_min"),
        ("automl.parameters=[dataset.augmentation.test_min_size]", "how results are measured"),
        ("automl.parameters=[model.test.overlap_threshold]", "needs no training"),
        ("automl.parameters=[model.sem_seg_head.ignore_value]", "has no effect"),
        ("automl.parameters=[evaluate.batch_size]", "training does not read it"),
        ("automl.parameters=[train.freeze]", "valid_options"),
        ("automl.ranges={train.optim.power: {valid_min: 1e-3}}", "no range of its own"),
        ("automl.ranges={train.optim.lr: {valid_min: 0.5}}", "one end of it the usual one"),
        ("automl.ranges={train.optim.lr: {}}", "needs valid_min and valid_max"),
        ("automl.ranges={train.optim.lr: {valid_min: 1e-2, valid_max: 1e-3}}", "is not below"),
        ("automl.ranges={train.optim.lr: {valid_min: -1, valid_max: 1}}", "must be a number above 0"),
        ("automl.ranges={train.optim.weight_decay: {valid_min: 0, valid_max: 0.1, scale: log}}", "logarithmic"),
        ("automl.ranges={train.optim.lr: {valid_mn: 1e-3, valid_max: 1e-2}}", "did you mean valid_min"),
        ("automl.ranges={train.optim.lr: {depends_on: train.seed}}", "nothing says how"),
        ("automl.ranges={train.optim.lr: {math_cond: '> depends_on'}}", "which is not given"),
        ("automl.ranges={train.optim.lr: {math_cond: about 3}}", "a sign and a number"),
        ("automl.ranges={train.optim.lr: {math_cond: '/ 32'}}", "no whole number"),
        ("automl.ranges={train.optim.lr: {math_cond: '> 0.5'}}", "fulfils math_cond"),
        ("automl.ranges={train.optim.lr: {math_cond: '^ 1'}}", "a whole number of at least 2"),
        ("automl.ranges={train.optim.lr: {disable_list: false}}", "a value is drawn whole"),
        ("automl.ranges={train.optim.lr: {valid_min: [1e-5, 1e-4]}}", "lists 2 numbers"),
        ("automl.ranges={train.optim.lr: {math_cond: '< depends_on', depends_on: train.optim.lrr}}", "did you mean"),
        (
            "automl.ranges={train.optim.lr: {math_cond: '< depends_on', depends_on: train.freeze}}",
            "no number beside it",
        ),
        (
            "automl.ranges={train.optim.lr: {math_cond: '> depends_on', depends_on: dataset.max_scale}}",
            "the spec's own",
        ),
        (
            "automl.ranges={train.optim.lr: {math_cond: '> 1', depends_on: dataset.max_scale}}",
            "does not name depends_on",
        ),
        ("automl.ranges={train.optim.lr_scheduler: {valid_options: [cosine, constant], math_cond: '> 0'}}", "exclude"),
        (
            "automl.ranges={dataset.min_scale: {math_cond: '< depends_on', depends_on: dataset.max_scale}, "
            "dataset.max_scale: {math_cond: '> depends_on', depends_on: dataset.min_scale}}",
            "depend on one another",
        ),
        ("automl.ranges={train.optim.lr_scheduler: {valid_options: [cosine, cosin]}}", "must be one of"),
        ("automl.ranges={train.optim.lr: {valid_options: [1e-3, 1e-2], option_weights: [1]}}", "for each option"),
    ],
)
def test_what_makes_no_sense_is_refused(word: str, message: str) -> None:
    with pytest.raises(UserErrors) as error:
        space(word)
    assert message in error.value.message


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        space("automl.parameters=[train.seed,train.optim.lrr,model.test.overlap_threshold]")
    assert error.value.message.startswith("[1/3]")


def test_what_is_never_searched_is_named_rightly() -> None:
    assert set(NEVER) <= {*leaves(), *sections()}
    marked = {key for key, leaf in leaves().items() if mark_of(leaf)}
    assert not {key for key in marked if why_not(key)}, "no key that does nothing, or changes the ruler, has a mark"


def test_the_command_shows_percentiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["automl", "space", "preset=swin_t", "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)["searched"]["train.optim.weight_decay"]
    assert told["draws"]["P50"] == pytest.approx(math.sqrt(1e-3 * 0.3), rel=0.05)
    assert cli.main(["automl", "space", "preset=swin_t"]) == cli.DONE
    out = capsys.readouterr().out
    assert "P10" in out and "not searched: model.backbone.dinat.drop_path_rate" in out


def one(key: str, said: str, *words: str) -> Dimension:
    found = space(f"automl.ranges={{{key}: {said}}}", *words)
    return next(d for d in found.dimensions if d.key == key)


def test_the_end_that_is_left_open_is_the_usual_one() -> None:
    usual = next(d for d in space().dimensions if d.key == "train.optim.lr")
    low = one("train.optim.lr", "{valid_min: 1e-5}")
    assert (low.low, low.high, low.log) == (1e-5, usual.high, True)
    assert one("train.optim.lr", "{valid_max: [1e-3], valid_min: null}").high == 1e-3


def test_conditions_with_a_number_cut_the_range() -> None:
    decay = one("train.optim.weight_decay", "{valid_min: 0.0, valid_max: 0.2, scale: linear, math_cond: '> 0.0'}")
    assert drawn(decay, 2000).min() > 0 and decay.high == 0.2
    layers = one("model.one_former.dec_layers", "{valid_min: 3, valid_max: 12, math_cond: '<= 11.5'}")
    assert (layers.low, layers.high) == (3, 11)


def test_multiples_are_drawn_alike_and_powers_are_choices() -> None:
    said = "{valid_min: 500, valid_max: 1000, math_cond: '/ 32'}"
    hidden = one("model.one_former.dim_feedforward", said, "model.one_former.dim_feedforward=512")
    values, counts = np.unique(drawn(hidden), return_counts=True)
    assert values.tolist() == list(range(512, 993, 32)) and counts.min() > 0.9 * counts.max()
    powers = one("model.one_former.dim_feedforward", "{valid_min: 8, valid_max: 100, math_cond: '^ 2'}")
    assert powers.choices == (8, 16, 32, 64, 2048), "2048 is the spec's own"


BOUND = (
    "automl.ranges={dataset.min_scale: {valid_min: 0.1, valid_max: 2.0}, dataset.max_scale: {valid_min: 0.5, "
    "valid_max: 2.5, depends_on: dataset.min_scale, math_cond: '> depends_on'}}"
)
ORDER = "automl.parameters=[dataset.min_scale,dataset.max_scale]"


def test_a_value_that_depends_on_another_one_is_drawn_beside_it() -> None:
    found, rng = space(BOUND), np.random.default_rng(3)
    points = [found.draw(rng.random) for _ in range(2000)]
    assert all(p["dataset.min_scale"] < p["dataset.max_scale"] for p in points)
    high = [p["dataset.max_scale"] for p in points]
    assert min(high) < 0.8 and max(high) > 2.3, "the bound cuts the range, and does not draw all values to it"
    spec = load_spec(None, ["preset=swin_t", BOUND], action="a")
    assert not found.faults(spec, points[0])
    wrong = found.faults(spec, {**points[0], "dataset.min_scale": 2.0, "dataset.max_scale": 1.0})
    assert wrong[0] == "dataset.max_scale is 1.0, but has to be above dataset.min_scale"


def test_a_value_may_be_a_share_of_another_one() -> None:
    words = (
        "automl.ranges={model.one_former.dim_feedforward: {valid_min: 512, valid_max: 2048, math_cond: '/ 256'}, "
        "model.sem_seg_head.dim_feedforward: {valid_min: 128, valid_max: 1024, math_cond: '/ 2', "
        "depends_on: model.one_former.dim_feedforward}}"
    )
    found, rng = space(words, "model.sem_seg_head.dim_feedforward=1024"), np.random.default_rng(3)
    for point in (found.draw(rng.random) for _ in range(200)):
        assert point["model.sem_seg_head.dim_feedforward"] == point["model.one_former.dim_feedforward"] // 2


def test_a_bound_to_a_key_that_is_not_searched_is_one_to_its_value() -> None:
    said = "{valid_min: 0.5, valid_max: 2.5, depends_on: dataset.min_scale, math_cond: '>= depends_on'}"
    found = one("dataset.max_scale", said, "automl.parameters=[dataset.max_scale]", "dataset.min_scale=0.9")
    assert found.low == 0.9 and found.bound is None


def test_ranges_may_change_on_the_way_and_never_beyond_what_the_key_may_hold() -> None:
    found = space()
    by_key = {d.key: d for d in found.dimensions}
    lr, drop = by_key["train.optim.lr"], by_key["model.backbone.swin.drop_path_rate"]
    assert lr.widest == pytest.approx((lr.low / 10, min(1.0, lr.high * 10)), rel=1e-3) and drop.widest == (
        0.0,
        pytest.approx(0.95),
    )
    assert one("train.optim.lr", "{valid_min: 1e-5, valid_max: 1e-3}").widest is None, "the user's range is a limit"
    narrow = found.within({"train.optim.lr": [1e-4, 2e-4]})
    assert {d.key: (d.low, d.high) for d in narrow.dimensions}["train.optim.lr"] == (1e-4, 2e-4)
    assert found.within({}) == found
    hull = found.around([{"train.optim.lr": [1e-4, 2e-4]}, {"train.optim.lr": [1e-7, 1e-5]}])
    assert {d.key: (d.low, d.high) for d in hull.dimensions}["train.optim.lr"] == (1e-7, lr.high)


@pytest.mark.parametrize("root", ["automl.ranges", "custom_param_ranges"])
def test_a_range_may_be_given_by_its_key_on_the_command_line(root: str) -> None:
    words = (f"{root}.train.optim.lr={{valid_max: 1e-3}}", f"{root}.train.optim.weight_decay={{valid_max: 0.1}}")
    found = {d.key: d.high for d in space(*words).dimensions}
    assert (found["train.optim.lr"], found["train.optim.weight_decay"]) == (1e-3, 0.1)
    with pytest.raises(UserErrors, match="train.optim.lr has two ranges"):
        space("automl.ranges={train.optim.lr: {valid_max: 1e-3}, train: {optim: {lr: {valid_max: 1e-2}}}}")


def test_the_command_draws_by_the_bounds_and_tells_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["automl", "space", "preset=swin_t", BOUND]) == cli.DONE
    assert "dataset.max_scale has to be above dataset.min_scale" in capsys.readouterr().out
    assert cli.main(["automl", "space", "preset=swin_t", BOUND, "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)["searched"]["dataset.max_scale"]
    assert told["has_to_be"] == "above dataset.min_scale" and told["draws"]["P50"] > 1.55, (
        "without the bound it were 1.5"
    )
