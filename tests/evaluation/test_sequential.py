import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from noria.domain.errors import InvalidData
from noria.evaluation.cells import Categories, NumericBins
from noria.evaluation.sequential import (
    CELL_CONCENTRATIONS,
    CONCENTRATIONS,
    LATEST,
    SCORE_STEPS,
    bet,
    bet_counts,
    detect_counts,
    e_bh,
    log_detector,
    log_e_bets,
    log_e_block,
    log_e_groups,
    log_e_path,
    log_e_since,
    log_e_since_path,
    log_e_stretches,
    log_e_two_sample,
    log_threshold,
    no_bets,
    non_inferiority,
    started,
)

ALARM = math.log(20)
cells = st.lists(st.integers(0, 2000), min_size=1, max_size=12)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# --- drift


def stream(rng, shift, *, looks=150, rows=100, reference=2000, bins=10):
    """Cumulative counts of a normal stream in bins at the quantiles of its reference."""
    before = rng.normal(size=reference)
    cells = NumericBins.fit(before, bins)
    counts = np.stack([cells.count(look) for look in rng.normal(size=(looks, rows)) + shift]).cumsum(axis=0)
    return log_e_path(counts, cells.count(before), cells.groupings, cells.ordered)


def test_an_unchanged_stream_alarms_at_most_as_often_as_promised_over_many_looks(rng):
    alarms = sum(stream(rng, 0.0).max() >= ALARM for _ in range(100))
    assert alarms <= 5 + 2 * math.sqrt(100 * 0.05 * 0.95)


def test_a_stream_that_moved_is_found_soon(rng):
    delays = [int(np.argmax(path >= ALARM)) for path in (stream(rng, 0.3) for _ in range(30)) if path.max() >= ALARM]
    assert len(delays) == 30
    assert np.median(delays) <= 3


def test_a_long_tail_alarms_no_more_often_than_promised(rng):
    """300 rows of a column with thousands of values: most of what comes was never seen."""
    law = 1 / np.arange(1, 5001)
    law /= law.sum()

    def highest():
        cells, reference = Categories.learnt(rng.choice(5000, 300, p=law))
        looks = cells.assign(rng.choice(5000, 10_000, p=law)).reshape(100, 100)
        counts = np.stack([np.bincount(look, minlength=cells.size) for look in looks]).cumsum(axis=0)
        return log_e_path(counts, reference).max()

    assert sum(highest() >= ALARM for _ in range(60)) <= 3 + 2 * math.sqrt(60 * 0.05 * 0.95)


@given(cells, cells)
def test_the_evidence_of_counts_does_not_depend_on_the_order_of_the_cells(counts, reference):
    size = min(len(counts), len(reference))
    c, r = np.array(counts[:size]), np.array(reference[:size])
    turned = log_e_two_sample(c[::-1], r[::-1])
    assert log_e_two_sample(c, r) == pytest.approx(turned, abs=1e-6)
    mirrored = log_e_two_sample(c[::-1], r[::-1], ordered=size)
    assert log_e_two_sample(c, r, ordered=size) == pytest.approx(mirrored, abs=1e-6)


VIEWS = ({}, {"ordered": 3}, {"ordered": 2}, {"groupings": [np.array([0, 1, 0])]})


def expectation(reference, rows, support, **views):
    """Exact expected evidence after some rows, under the predictive law on some of the cells."""
    outcomes = [c for c in itertools.product(range(rows + 1), repeat=len(reference)) if sum(c) == rows]
    total = 0.0
    for counts in outcomes:
        if any(c and not held for c, held in zip(counts, support, strict=True)):
            continue
        inside = np.array(support, bool)
        prior = (np.array(reference) + 0.5)[inside]
        law = stats.dirichlet_multinomial.pmf(np.array(counts)[inside], prior, rows)
        total += law * math.exp(log_e_two_sample(counts, reference, **views))
    return total


@pytest.mark.parametrize("views", VIEWS, ids=str)
def test_evidence_under_the_reference_has_expectation_one(views):
    """Exact for a law drawn from the reference's posterior, which is what the promise is made for."""
    assert expectation([30, 50, 20], 7, [1, 1, 1], **views) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("views", VIEWS, ids=str)
@pytest.mark.parametrize("support", [[1, 1, 1], [1, 1, 0]])
def test_it_is_at_most_one_on_every_set_of_cells_if_the_reference_leaves_some_empty(views, support):
    assert expectation([9, 4, 0], 6, support, **views) <= 1 + 1e-9


def test_the_expectation_holds_given_what_was_seen_before(rng):
    """A martingale: the mean of the evidence after one more row is the evidence before it."""
    for views in VIEWS:
        reference, counts = rng.integers(1, 30, 3), rng.integers(0, 30, 3)
        held = reference + counts + 0.5
        after = [log_e_two_sample(counts + row, reference, **views) for row in np.eye(3, dtype=int)]
        assert np.dot(held / held.sum(), np.exp(after)) == pytest.approx(
            math.exp(log_e_two_sample(counts, reference, **views)), rel=1e-9
        )


def test_evidence_agrees_with_scipy_where_the_ratio_is_written_out():
    """One cell against all others and any change, each by scipy's laws, for an unordered column."""
    reference, counts = np.array([40, 300, 60]), np.array([25, 60, 15])
    held, rows = reference + 0.5, counts.sum()
    shares = held / held.sum()

    def ratio(seen, prior, at, taus):
        law = stats.dirichlet_multinomial
        alike = law.logpmf(seen, prior, rows)
        return np.mean([math.exp(law.logpmf(seen, tau * at, rows) - alike) for tau in taus if tau <= held.sum()])

    cells = [
        ratio([c, rows - c], [h, held.sum() - h], np.array([p, 1 - p]), CELL_CONCENTRATIONS)
        for c, h, p in zip(counts, held, shares, strict=True)
    ]
    wanted = (ratio(counts, held, shares, CONCENTRATIONS) + np.mean(cells)) / 2
    assert log_e_two_sample(counts, reference) == pytest.approx(math.log(wanted), rel=1e-9)


@pytest.mark.parametrize("rows", [10**3, 10**6, 10**9])
def test_a_constant_never_is_evidence_however_long_it_stays(rows):
    assert log_e_two_sample([0, rows, 0, 0], [0, 500, 0, 0], ordered=3) < 1
    assert log_e_two_sample([0, rows, 0, 1], [0, 500, 0, 0], ordered=3) < ALARM


def test_a_value_that_the_reference_never_held_does_not_hide_a_change_by_staying_away():
    """The `missing` cell of a complete column: evidence is much the same as without it."""
    reference, counts = np.full(10, 50), np.linspace(80, 120, 10).astype(int) * 10
    alone = log_e_two_sample(counts, reference, ordered=10)
    assert log_e_two_sample(np.append(counts, 0), np.append(reference, 0), ordered=10) == pytest.approx(alone, abs=1)


def test_a_million_cells_and_a_billion_rows_keep_their_evidence_finite(rng):
    reference, counts = rng.poisson(0.5, 10**6), rng.poisson(0.5, 10**6)
    assert log_e_two_sample(counts, reference) < 1
    much = np.array([4, 3, 2, 1]) * 10**9
    assert log_e_two_sample(much, much, ordered=4) < 0
    assert 1e6 < log_e_two_sample(much, much[::-1], ordered=4) < math.inf


def test_a_whole_distribution_that_moves_a_little_is_found_sooner_if_its_order_is_known(rng):
    moved = np.array([30, 40, 45, 48, 50, 52, 54, 56, 60, 65]) * 10
    assert log_e_two_sample(moved, np.full(10, 500), ordered=10) > log_e_two_sample(moved, np.full(10, 500)) + 2


def test_one_class_that_rises_is_found_among_many_however_many_stay_as_they_are():
    reference = np.full(60, 100)
    counts = np.full(60, 20)
    counts[7] = 60
    assert log_e_two_sample(counts, reference) > ALARM


def test_without_a_reference_nothing_is_evidence():
    assert log_e_two_sample([10**6, 5, 0], [0, 0, 0], ordered=3) == 0


@pytest.mark.parametrize("reference", [[0, 0, 0], [5, 0, 0], [10**9, 1, 0]])
def test_nothing_seen_is_no_evidence(reference):
    assert log_e_two_sample([0, 0, 0], reference) == 0


def test_one_cell_is_never_evidence():
    assert log_e_two_sample([12345], [678]) == pytest.approx(0, abs=1e-9)


# --- drift that comes late


def late(rng, calm, shift, looks, rows=100, reference=2000):
    """Cells, reference and cumulative counts of a normal stream that moves after some calm looks."""
    before = rng.normal(size=reference)
    cells = NumericBins.fit(before)
    values = rng.normal(size=(looks, rows))
    values[calm:] += shift
    return cells, cells.count(before), np.stack([cells.count(look) for look in values]).cumsum(axis=0)


def whole(cells, reference, counts):
    """Evidence at each look."""
    return np.concatenate(list(log_e_stretches(counts, reference, cells.groupings, cells.ordered)))


def test_a_change_after_long_calm_is_found_nearly_as_soon_as_one_at_once(rng):
    def delay(calm):
        path = whole(*late(rng, calm, 0.3, calm + 40))
        return int(np.argmax(path[calm:] >= ALARM)) + 1 if path[calm:].max() >= ALARM else 999

    assert np.median([delay(0) for _ in range(10)]) <= 4
    assert np.median([delay(150) for _ in range(6)]) <= 10


def test_evidence_that_begins_anew_alarms_no_more_often_than_promised(rng):
    alarms = sum(whole(*late(rng, 0, 0.0, 100)).max() >= ALARM for _ in range(40))
    assert alarms <= 2 + 2 * math.sqrt(40 * 0.05 * 0.95)


def test_a_stream_as_a_whole_has_the_evidence_that_monitors_had_window_by_window(rng):
    cells, reference, counts = late(rng, 0, 0.0, 30, rows=300)
    starts, path, every = (), [], []
    for now in counts:
        path.append(log_e_since(now, reference, starts, cells.groupings, cells.ordered))
        starts = started(starts, now, reference)
        every.append(starts)
    assert whole(cells, reference, counts) == pytest.approx(path)
    assert len(starts) == LATEST
    assert [b[0] - a[0] for a, b in itertools.pairwise(starts)] == [1] * (LATEST - 1)
    assert starts[-1][0] == len({held[-1][0] for held in every if held})


def test_all_looks_at_once_give_the_evidence_of_each(rng):
    counts = rng.integers(0, 30, (4, 5)).cumsum(axis=0) + 100
    reference, starts = rng.integers(1, 50, 5), ((3, 20, 20, 20, 20, 20), (4, 50, 40, 60, 50, 50))
    path = log_e_since_path(counts, reference, starts, ordered=5)
    assert path == pytest.approx([log_e_since(now, reference, starts, ordered=5) for now in counts])


@pytest.mark.parametrize("views", VIEWS, ids=str)
def test_a_mixture_with_later_starts_is_a_martingale_too(rng, views):
    """Given everything so far, the mean of the evidence after one more row is the evidence before it."""
    for starts in ((), ((1, 4, 2, 3),), ((1, 1, 1, 1), (2, 4, 2, 3))):
        reference, counts = rng.integers(1, 30, 3), rng.integers(5, 30, 3)
        held = reference + counts + 0.5
        after = [log_e_since(counts + row, reference, starts, **views) for row in np.eye(3, dtype=int)]
        expected = np.dot(held / held.sum(), np.exp(after))
        assert expected == pytest.approx(math.exp(log_e_since(counts, reference, starts, **views)), rel=1e-9)


def test_a_start_that_has_seen_nothing_is_worth_its_weight():
    counts, reference = np.array([5, 6, 7]), np.array([50, 60, 70])
    begun = ((1, 5, 6, 7),)
    assert log_e_since(counts, reference, begun) == pytest.approx(log_e_since(counts, reference, ()), abs=1e-12)


# --- quality


def capital(scores, floor, per=50):
    """Evidence after each look of `per` scores."""
    state, path = no_bets(), []
    for start in range(0, len(scores), per):
        state = bet(state, scores[start : start + per], floor)
        path.append(log_e_bets(state))
    return np.array(path)


def test_scores_on_the_floor_alarm_at_most_as_often_as_promised(rng):
    alarms = sum(capital(rng.random(5000) < 0.8, 0.8).max() >= ALARM for _ in range(100))
    assert alarms <= 5 + 2 * math.sqrt(100 * 0.05 * 0.95)


def test_a_fall_below_the_floor_is_found_soon_even_after_long_good_years(rng):
    def delay(good):
        scores = np.concatenate([rng.random(good) < 0.82, rng.random(4000) < 0.55])
        return (int(np.argmax(capital(scores, 0.78) >= ALARM)) + 1) * 50 - good

    assert np.median([delay(0) for _ in range(20)]) <= 100
    assert np.median([delay(10_000) for _ in range(20)]) <= 250


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1))
def test_the_order_of_scores_within_a_look_does_not_matter(scores, floor):
    forwards, backwards = bet(no_bets(), scores, floor), bet(no_bets(), scores[::-1], floor)
    assert forwards == pytest.approx(backwards)
    assert all(math.isfinite(c) for c in forwards)


def test_no_scores_change_nothing():
    state = bet(no_bets(), [0.2, 0.9], 0.5)
    assert bet(state, [], 0.5) == state
    assert bet(state, [math.nan], 0.5) == state
    assert log_e_bets(no_bets()) == pytest.approx(0)


def test_perfect_scores_never_are_evidence_and_infinite_ones_are_clipped():
    assert capital(np.ones(1000), 0.9).max() <= 1e-12
    assert bet(no_bets(), [math.inf, -math.inf], 0.5) == bet(no_bets(), [1, 0], 0.5)


def on_grid(scores):
    """Counts of scores that are rounded up to the grid."""
    return np.bincount(np.ceil(np.asarray(scores) * SCORE_STEPS - 1e-9).astype(int), minlength=SCORE_STEPS + 1)


@given(st.lists(st.integers(0, SCORE_STEPS), max_size=60), st.floats(0, 1), st.integers(0, 60), st.randoms())
def test_counted_scores_give_the_identical_state_for_any_partition_in_any_order(steps, floor, cut, chance):
    whole = bet_counts(no_bets(), np.bincount(steps, minlength=SCORE_STEPS + 1), floor)
    mixed = list(steps)
    chance.shuffle(mixed)
    parts = [np.bincount(np.array(part, int), minlength=SCORE_STEPS + 1) for part in (mixed[:cut], mixed[cut:])]
    assert bet_counts(no_bets(), parts[1] + parts[0], floor) == whole
    assert whole == pytest.approx(bet(no_bets(), np.array(steps) / SCORE_STEPS, floor), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_rounding_scores_up_never_adds_evidence(scores, floor):
    counted = bet_counts(no_bets(), on_grid(scores), floor)
    assert log_e_bets(counted) <= log_e_bets(bet(no_bets(), scores, floor)) + 1e-6


def test_missing_scores_are_no_scores_and_too_few_points_are_refused():
    counts = np.append(np.zeros(SCORE_STEPS + 1, int), 7)
    assert bet_counts(no_bets(), counts, 0.8) == no_bets()
    assert detect_counts((), counts, 0.8) == ()
    with pytest.raises(InvalidData, match="201 points"):
        bet_counts(no_bets(), [1, 2, 3], 0.8)


def test_a_billion_scores_are_counted_without_losing_their_evidence():
    counts = np.zeros(SCORE_STEPS + 1, np.int64)
    counts[[0, -1]] = 250_000_000, 750_000_000
    state = bet_counts(no_bets(), counts, 0.8)
    assert all(math.isfinite(c) for c in state)
    assert log_e_bets(state) > 1e6
    assert log_e_bets(bet_counts(no_bets(), counts, 0.5)) <= 0


def detected(rng, shares, arl, per=50):
    """The look at which the detector alarms, None if it doesn't; one window of correct answers for each share."""
    state = ()
    for look, share in enumerate(shares, 1):
        state = detect_counts(state, on_grid(rng.random(per) < share), 0.8)
        if log_detector(state) >= math.log(arl):
            return look
    return None


def test_the_detector_runs_as_long_as_it_promises_before_a_false_alarm(rng):
    """Streams are cut off at three times the promise, which only makes the mean smaller."""
    arl = 2500
    runs = [(detected(rng, [0.8] * (3 * arl // 50), arl) or 3 * arl // 50) * 50 for _ in range(100)]
    assert np.mean(runs) >= arl


def test_the_detector_is_as_quick_after_good_years_as_at_the_beginning(rng):
    def delay(good):
        return detected(rng, [0.82] * good + [0.55] * 100, 100_000) - good

    assert np.median([delay(0) for _ in range(20)]) <= 4
    assert np.median([delay(200) for _ in range(20)]) <= 4


def test_the_detector_begins_at_nothing_and_sums_bets_that_begin_with_each_score():
    assert log_detector(()) == -math.inf
    first = detect_counts((), on_grid([1.0] * 3), 1.0)
    assert log_detector(first) < math.log(3)
    assert log_detector(detect_counts((), on_grid([0.5] * 3), 0.5)) == pytest.approx(math.log(3))


# --- canary


def guard(rng, champion, candidate, share, *, blocks=80, block=50):
    """Highest evidence of a rollout, and the block at which it reached ln 40."""
    past_a, past_b, log_e, path = (0, 0), (0, 0), 0.0, []
    for _ in range(blocks):
        total = int(rng.binomial(block, share))
        a = (int(rng.binomial(block - total, champion)), block - total)
        b = (int(rng.binomial(total, candidate)), total)
        log_e += log_e_block(a, b, past_a, past_b)
        past_a, past_b = (past_a[0] + a[0], past_a[1] + a[1]), (past_b[0] + b[0], past_b[1] + b[1])
        path.append(log_e)
    return np.array(path)


@pytest.mark.parametrize(("rate", "share"), [(0.02, 0.1), (0.2, 0.5)])
def test_a_candidate_that_is_as_good_is_rarely_stopped(rng, rate, share):
    stopped = sum(guard(rng, rate, rate, share).max() >= math.log(40) for _ in range(150))
    assert stopped <= 150 * 0.025 + 2 * math.sqrt(150 * 0.025)


def test_a_better_candidate_is_never_stopped(rng):
    assert max(guard(rng, 0.3, 0.1, 0.5).max() for _ in range(20)) < math.log(40)


def test_a_candidate_that_fails_is_stopped_soon(rng):
    delays = [int(np.argmax(guard(rng, 0.02, 0.2, 0.1) >= math.log(40))) for _ in range(30)]
    assert np.median(delays) <= 12
    assert min(delays) > 0


def test_a_block_is_an_e_variable_whatever_its_sizes():
    """Exact expectation over all outcomes of a block with two equal rates, and with a better candidate."""
    past = ((3, 40), (9, 30))

    def expectation(rate_a, rate_b, n, m):
        def law(k, size, rate):
            return math.comb(size, k) * rate**k * (1 - rate) ** (size - k)

        return sum(
            law(a, n, rate_a) * law(b, m, rate_b) * math.exp(log_e_block((a, n), (b, m), *past))
            for a in range(n + 1)
            for b in range(m + 1)
        )

    for rate in (0.01, 0.15, 0.5, 0.9):
        for sizes in ((1, 1), (7, 2), (2, 9)):
            assert expectation(rate, rate, *sizes) <= 1 + 1e-9
            assert expectation(rate, rate / 2, *sizes) <= 1 + 1e-9


def test_a_block_without_a_past_or_without_one_of_the_two_says_nothing():
    assert log_e_block((1, 10), (5, 10), (0, 0), (0, 0)) == 0
    assert log_e_block((1, 10), (0, 0), (1, 10), (5, 10)) == 0


# --- parity


def expected_parity(sizes, past, rate):
    """Exact expectation of a block's evidence when all groups fail at one rate."""
    total = 0.0
    for failed in itertools.product(*(range(n + 1) for n in sizes)):
        law = math.prod(stats.binom.pmf(f, n, rate) for f, n in zip(failed, sizes, strict=True))
        total += law * math.exp(log_e_groups(list(zip(failed, sizes, strict=True)), past))
    return total


@pytest.mark.parametrize("sizes", [(3, 3), (1, 1, 1), (6, 2, 1), (4, 0, 3)])
@pytest.mark.parametrize("rate", [0.01, 0.2, 0.7])
def test_a_block_of_groups_is_an_e_variable_whatever_its_sizes(sizes, rate):
    past = [(3, 40), (30, 60), (0, 0)][: len(sizes)]
    assert expected_parity(sizes, past, rate) <= 1 + 1e-9


def parity(rng, rates, shares, *, blocks=120, block=50):
    """Evidence after each block."""
    past, log_e, path = [(0, 0)] * len(rates), 0.0, []
    for sizes in rng.multinomial(block, shares, size=blocks):
        now = [(int(rng.binomial(n, rate)), int(n)) for n, rate in zip(sizes, rates, strict=True)]
        log_e += log_e_groups(now, past)
        past = [(f + a, n + b) for (f, n), (a, b) in zip(past, now, strict=True)]
        path.append(log_e)
    return np.array(path)


def test_groups_that_are_served_alike_are_rarely_called_unequal(rng):
    alarms = sum(parity(rng, [0.1] * 4, [0.4, 0.3, 0.2, 0.1]).max() >= ALARM for _ in range(100))
    assert alarms <= 5 + 2 * math.sqrt(100 * 0.05 * 0.95)


def test_a_group_that_is_served_worse_is_found(rng):
    paths = [parity(rng, [0.1, 0.1, 0.1, 0.3], [0.4, 0.3, 0.2, 0.1]) for _ in range(20)]
    assert np.median([int(np.argmax(path >= ALARM)) or 999 for path in paths]) <= 25


@given(st.permutations(range(3)))
def test_the_order_of_the_groups_does_not_matter(order):
    block, past = [(3, 10), (1, 20), (9, 15)], [(10, 90), (5, 40), (0, 7)]
    turned = log_e_groups([block[i] for i in order], [past[i] for i in order])
    assert turned == pytest.approx(log_e_groups(block, past), abs=1e-12)


def test_groups_without_a_past_or_without_company_say_nothing():
    assert log_e_groups([(1, 2), (0, 3)], [(0, 0), (0, 0)]) == 0
    assert log_e_groups([(1, 2), (0, 0)], [(1, 9), (0, 9)]) == 0
    with pytest.raises(ValueError, match="shorter"):
        log_e_groups([(1, 2), (0, 3)], [(0, 1)])


# --- gates


def pairs(rng, difference, rows, disagree=0.1):
    return rng.choice([-1, 0, 1], p=[(disagree - difference) / 2, 1 - disagree, (disagree + difference) / 2], size=rows)


def test_a_candidate_worse_by_the_margin_rarely_passes(rng):
    passed = sum(non_inferiority(pairs(rng, -0.03, 800), 0.03).log_e >= ALARM for _ in range(200))
    assert passed <= 10 + 2 * math.sqrt(200 * 0.05 * 0.95)


def test_a_candidate_that_is_as_good_mostly_passes(rng):
    passed = sum(non_inferiority(pairs(rng, 0.0, 2000), 0.03).log_e >= ALARM for _ in range(40))
    assert passed >= 36


def test_the_bounds_hold_and_agree_with_the_evidence(rng):
    covered = 0
    for _ in range(60):
        found = non_inferiority(pairs(rng, 0.02, 400), 0.03)
        assert found.lower <= found.mean <= found.upper
        assert (found.log_e >= ALARM) == (found.lower >= -0.03)
        covered += found.lower <= 0.02 <= found.upper
    assert covered >= 52


def test_the_confidence_sequence_narrows_and_holds_at_every_look_at_once(rng):
    missed = 0
    for _ in range(60):
        found = non_inferiority(pairs(rng, 0.02, 400), 0.03)
        looks = found.sequence
        assert (looks[-1].rows, looks[-1].lower, looks[-1].upper) == (400, found.lower, found.upper)
        assert [b.rows for b in looks] == sorted({b.rows for b in looks})
        assert all(a.lower <= b.lower and b.upper <= a.upper for a, b in itertools.pairwise(looks))
        missed += not all(b.lower <= 0.02 <= b.upper for b in looks)
    assert missed <= 6 + 2 * math.sqrt(60 * 0.1 * 0.9)


def test_a_single_row_has_bounds_too():
    found = non_inferiority([1], 0.03)
    assert (found.rows, len(found.sequence)) == (1, 1)
    assert -1 <= found.lower <= found.upper == 1


def test_the_order_of_the_rows_does_not_make_a_candidate_pass():
    worse = np.array([1] * 40 + [0] * 400 + [-1] * 80)
    assert non_inferiority(worse, 0.03).log_e < ALARM
    assert non_inferiority(worse[::-1], 0.03).log_e < ALARM


def test_no_rows_prove_nothing():
    found = non_inferiority([], 0.03)
    assert (found.log_e, found.lower, found.upper, found.rows) == (0, -1, 1, 0)
    assert non_inferiority([math.nan], 0.03) == found


# --- many monitors


def test_the_alarm_line_rises_with_the_number_of_monitors():
    assert log_threshold(0.05) == pytest.approx(ALARM)
    assert log_threshold(0.05, 4) == pytest.approx(math.log(80))


def test_e_bh_rejects_what_stands_out():
    assert e_bh({"a": math.log(100), "b": 0.0, "c": math.log(41)}, 0.05) == {"a", "c"}
    assert e_bh({"a": math.log(30), "b": 0.0, "c": 0.0}, 0.05) == frozenset()
    assert e_bh({}, 0.05) == frozenset()
