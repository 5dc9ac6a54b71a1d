//! The statistics against vectors: those of the reference sheet, and those that `scripts/stats_vectors.py` computes from
//! the definitions.

use mergesweep::paired::seeds::difference;
use mergesweep::paired::{Doc, Entrant, Outcomes};
use mergesweep::stats::binary::{Discordant, bonett_price, mcnemar, mcnemar_worse, smallest_p};
use mergesweep::stats::gate::{Verdict, items_for_margin, judge, smallest_margin};
use mergesweep::stats::interval::{
    binary_standard_error, clopper_pearson, clustered_standard_error, macro_standard_error, micro_standard_error,
    wilson,
};
use mergesweep::stats::multiple::{benjamini_hochberg, expected_best, holm};
use mergesweep::stats::permutation::{DRAWS, overall, sign_flip, sign_flip_p};
use mergesweep::stats::power::{approximate_detectable, detectable, items_needed, mcnemar_power};
use mergesweep::stats::ratio::Scale;
use mergesweep::stats::seeds::summarise;
use mergesweep::stats::{Items, SEED, Test, compare};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../fixtures/stats/vectors.json")).unwrap()
}

fn each(name: &str) -> Vec<Value> {
    vectors()[name].as_array().unwrap().clone()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn pairs(value: &Value) -> Vec<(f64, f64)> {
    value.as_array().unwrap().iter().map(|pair| (number(&pair[0]), number(&pair[1]))).collect()
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
}

#[test]
fn mcnemar_is_exact() {
    // The table of the reference sheet.
    let table = [
        ((0, 0), 1.0),
        ((1, 1), 1.0),
        ((3, 0), 0.25),
        ((5, 0), 0.0625),
        ((6, 0), 0.03125),
        ((8, 2), 0.10938),
        ((9, 2), 0.06543),
        ((10, 3), 0.09229),
        ((12, 4), 0.07681),
        ((20, 1), 0.00002),
        ((25, 6), 0.00088),
    ];
    for ((b, c), p) in table {
        near(mcnemar(Discordant { b, c }), p, 5.1e-6);
        near(mcnemar(Discordant { b: c, c: b }), p, 5.1e-6);
    }
    for vector in each("mcnemar") {
        let discordant = Discordant { b: count(&vector["b"]), c: count(&vector["c"]) };
        near(mcnemar(discordant), number(&vector["p"]), 1e-12);
        near(mcnemar_worse(discordant), number(&vector["worse"]), 1e-12);
    }
}

#[test]
fn totals_alone_bound_the_p_value() {
    let least = |level: f64| (0..30).find(|k| smallest_p(*k) < level).unwrap();
    assert_eq!([0.05, 0.05 / 7.0, 0.05 / 13.0, 0.05 / 91.0].map(least), [6, 9, 10, 12]);
}

#[test]
fn intervals_of_shares_are_those_of_the_sheet() {
    let table = [
        (95, 164, 0.03867, (0.5027, 0.6522), (0.4998, 0.6558)),
        (98, 164, 0.03841, (0.5211, 0.6696), (0.5183, 0.6733)),
        (76, 164, 0.03906, (0.3888, 0.5397), (0.3853, 0.5428)),
        (75, 100, 0.04352, (0.6570, 0.8245), (0.6534, 0.8312)),
        (100, 100, 0.0, (0.9630, 1.0), (0.9638, 1.0)),
    ];
    for (k, n, stderr, by_wilson, by_clopper_pearson) in table {
        near(binary_standard_error(k, n).unwrap(), stderr, 5e-6);
        let (found, exact) = (wilson(k, n, 0.95).unwrap(), clopper_pearson(k, n, 0.95).unwrap());
        near(found.low, by_wilson.0, 5e-5);
        near(found.high, by_wilson.1, 5e-5);
        near(exact.low, by_clopper_pearson.0, 5e-5);
        near(exact.high, by_clopper_pearson.1, 5e-5);
    }
    for vector in each("shares") {
        let (k, n) = (count(&vector["k"]), count(&vector["n"]));
        for (found, name) in [(wilson(k, n, 0.95), "wilson"), (clopper_pearson(k, n, 0.95), "clopper_pearson")] {
            let expected = numbers(&vector[name]);
            near(found.unwrap().low, expected[0], 1e-9);
            near(found.unwrap().high, expected[1], 1e-9);
        }
    }
    // Exact at the ends, and a certain-looking score is not certain.
    assert_eq!(wilson(0, 8, 0.95).unwrap().low, 0.0);
    assert_eq!(wilson(8, 8, 0.95).unwrap().high, 1.0);
    near(wilson(0, 8, 0.95).unwrap().high, 0.324_4, 5e-5);
    assert_eq!(wilson(0, 0, 0.95), None);
    assert_eq!(wilson(3, 2, 0.95), None);
}

#[test]
fn bonett_and_prices_interval_matches_its_definition() {
    for vector in each("bonett_price") {
        let discordant = Discordant { b: count(&vector["b"]), c: count(&vector["c"]) };
        let found = bonett_price(discordant, count(&vector["n"]), number(&vector["z"]));
        let expected = numbers(&vector["interval"]);
        near(found.low, expected[0], 1e-9);
        near(found.high, expected[1], 1e-9);
    }
}

#[test]
fn sign_flips_of_few_items_are_all_gone_through() {
    for vector in each("sign_flip") {
        near(sign_flip_p(&numbers(&vector["differences"]), SEED), number(&vector["p"]), 1e-12);
    }
}

#[test]
fn sampled_sign_flips_agree_with_the_exact_test_and_repeat() {
    // 24 items, 17 up and 7 down: too many to go through, and McNemar's exact p is the answer.
    let differences: Vec<f64> = (0..24).map(|item| if item < 17 { 1.0 } else { -1.0 }).collect();
    let sampled = sign_flip_p(&differences, SEED);
    // p = .064: the draws' own standard deviation is .0025.
    near(sampled, mcnemar(Discordant { b: 17, c: 7 }), 0.01);
    assert_eq!(sampled, sign_flip_p(&differences, SEED));
    assert_ne!(sampled, sign_flip_p(&differences, SEED + 1));
}

#[test]
fn losses_have_the_standard_errors_and_swap_tests_of_the_script() {
    for vector in each("losses") {
        let scale = if vector["kind"] == "bits" { Scale::Bits } else { Scale::Perplexity };
        let items = |name: &str| Items::Ratio(pairs(&vector[name]), scale);
        let (a, b) = (items("a"), items("b"));
        near(a.score(), number(&vector["score"]), 1e-12);
        near(a.standard_error().unwrap(), number(&vector["stderr"]), 1e-12);
        let comparison = compare(&a, &b, SEED).unwrap();
        near(comparison.stderr.unwrap(), number(&vector["difference_stderr"]), 1e-12);
        assert_eq!(comparison.test, Test::Swap);
        if let Some(p) = vector["p"].as_f64() {
            near(comparison.p, p, 1e-12);
        }
        let back = compare(&b, &a, SEED).unwrap();
        assert_eq!((back.difference, back.p), (-comparison.difference, comparison.p));
    }
}

#[test]
fn an_interval_by_bootstrap_comes_only_from_200_documents_up() {
    let items = |n: usize, shift: f64| {
        let document = |i: usize| (100.0 + (i * 37 % 50) as f64 + shift * (i % 7) as f64, 200.0 + (i * 13 % 90) as f64);
        Items::Ratio((0..n).map(document).collect(), Scale::Bits)
    };
    for n in [199, 200] {
        let comparison = compare(&items(n, 1.0), &items(n, 0.0), SEED).unwrap();
        let (interval, stderr) = (comparison.interval.unwrap(), comparison.stderr.unwrap());
        // Both ways agree on data as tame as this: 1.96 standard errors to either side.
        near((interval.high - interval.low) / stderr, 3.92, 0.25);
        assert!(interval.low < comparison.difference && comparison.difference < interval.high);
    }
}

#[test]
fn corrections_are_those_of_the_sheet() {
    let p = [0.01, 0.04, 0.03, 0.005];
    for (found, expected) in [(holm(&p), [0.03, 0.06, 0.06, 0.02]), (benjamini_hochberg(&p), [0.02, 0.04, 0.04, 0.02])]
    {
        found.iter().zip(expected).for_each(|(found, expected)| near(*found, expected, 1e-12));
    }
    assert_eq!(holm(&[0.5, 0.5, 0.5]), [1.0, 1.0, 1.0]);
    assert_eq!(holm(&[]), [] as [f64; 0]);
}

#[test]
fn detectable_differences_are_those_of_the_sheet() {
    let table = [
        (100, [None, Some(0.088), Some(0.128)]),
        (164, [Some(0.049), Some(0.070), Some(0.101)]),
        (600, [Some(0.027), Some(0.037), Some(0.052)]),
    ];
    for (n, expected) in table {
        for (psi, expected) in [0.05, 0.10, 0.20].into_iter().zip(expected) {
            match (detectable(n, psi), expected) {
                (Some(found), Some(expected)) => near(found, expected, 6e-4),
                (found, expected) => assert_eq!(found, expected, "n = {n}, psi = {psi}"),
            }
        }
    }
    near(mcnemar_power(100, 0.05, 0.05), 0.38, 0.005);
    near(approximate_detectable(164, 0.1), 2.80 * (0.1_f64 / 164.0).sqrt(), 2e-4);
    for vector in each("power") {
        let found = mcnemar_power(count(&vector["n"]), number(&vector["psi"]), number(&vector["delta"]));
        near(found, number(&vector["power"]), 1e-6);
    }
    // The exact test needs a little more than the normal formula says.
    let n = items_needed(0.1, 0.025).ceil() as u64;
    let power = mcnemar_power(n, 0.1, 0.025);
    assert!((0.77..0.8).contains(&power), "{power}");
}

#[test]
fn the_best_of_equal_models_looks_better() {
    near(expected_best(20), 1.867_475, 1e-3);
    near(expected_best(100), 2.507_594, 1e-3);
    assert_eq!(expected_best(1), 0.0);
}

#[test]
fn seeds_are_summed_up_as_the_script_does() {
    for vector in each("seeds") {
        let scores: Vec<Vec<f64>> = vector["scores"].as_array().unwrap().iter().map(numbers).collect();
        let summary = summarise(&scores).unwrap();
        near(summary.mean, number(&vector["mean"]), 1e-12);
        near(summary.seed_sd.unwrap(), number(&vector["seed_sd"]), 1e-12);
        near(summary.stderr.unwrap(), number(&vector["stderr"]), 1e-12);
    }
    // Two seeds that answer all alike but for themselves: nothing but the seed is unsure, with one degree of freedom.
    let by_seed = summarise(&[vec![0.25; 9], vec![0.75; 9]]).unwrap();
    near(by_seed.freedom.unwrap(), 1.0, 1e-9);
    near(
        by_seed.interval().unwrap().high - by_seed.mean,
        12.706_2 * (0.125 * (1.0 - 1.0 / 9.0) / 2.0_f64).sqrt(),
        1e-3,
    );
    // Three seeds that make nothing of it: as many as items, but one.
    let items: Vec<f64> = (0..40).map(|item| f64::from(item % 2)).collect();
    near(summarise(&[items.clone(), items.clone(), items]).unwrap().freedom.unwrap(), 39.0, 1e-9);
    let single = summarise(&[vec![1.0, 0.0]]).unwrap();
    assert_eq!((single.k, single.seed_sd, single.stderr), (1, None, None));
    assert_eq!(summarise(&[vec![1.0], vec![1.0, 0.0]]), None);
}

#[test]
fn a_summary_of_differences_has_a_p_value_and_that_of_recipes_goes_seed_by_seed() {
    let summary = summarise(&[vec![0.25; 9], vec![0.75; 9]]).unwrap();
    // One degree of freedom: p = 1 - 2 atan(t) / pi.
    let t = summary.mean / summary.stderr.unwrap();
    near(summary.p().unwrap(), 1.0 - 2.0 * t.atan() / std::f64::consts::PI, 1e-6);
    assert_eq!(summarise(&[vec![0.0; 4], vec![0.0; 4]]).unwrap().p(), Some(1.0));
    assert_eq!(summarise(&[vec![0.5; 4]]).unwrap().p(), None);

    // Two seeds that move both recipes alike: nothing of the difference is the seed's.
    let trial = |items: [f64; 3]| {
        let doc = |id: u64| Doc { hash: format!("{id}"), id, prompt: String::new() };
        let outcomes = Outcomes {
            task: "task".to_owned(),
            metric: "acc".to_owned(),
            filter: "none".to_owned(),
            version: None,
            higher_is_better: true,
            is_estimate: false,
            reported: None,
            docs: (0..3).map(doc).collect(),
            items: Items::Graded(items.to_vec()),
        };
        Entrant { outcomes: vec![Some(outcomes)], ..Entrant::default() }
    };
    let one = [trial([0.2, 0.5, 0.8]), trial([0.4, 0.7, 1.0])];
    let other = [trial([0.1, 0.5, 0.6]), trial([0.3, 0.7, 0.8])];
    let found = difference(&one.each_ref(), &other.each_ref(), (0, 0)).unwrap();
    near(found.mean, 0.1, 1e-12);
    near(found.seed_sd.unwrap(), 0.0, 1e-12);
    // The items' differences are .1, 0 and .2.
    near(found.stderr.unwrap(), 0.1 / 3.0_f64.sqrt(), 1e-12);
}

#[test]
fn groups_and_clusters_have_their_standard_errors() {
    // Every item a cluster of its own: the plain standard error.
    let values = [1.0, 0.0, 1.0, 1.0, 0.0];
    let plain = Items::from_values(values.to_vec()).standard_error().unwrap();
    near(clustered_standard_error(&values, &[0, 1, 2, 3, 4]).unwrap(), plain, 1e-12);
    // Every item twice: as if there were half as many.
    let twice: Vec<f64> = values.iter().flat_map(|value| [*value, *value]).collect();
    near(clustered_standard_error(&twice, &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]).unwrap(), plain, 1e-12);
    assert_eq!(clustered_standard_error(&values, &[7; 5]), None);
    near(macro_standard_error(&[Some(0.03), Some(0.04)]).unwrap(), 0.025, 1e-12);
    assert_eq!(macro_standard_error(&[Some(0.03), None]), None);
    assert_eq!(micro_standard_error(&[(100, Some(0.05)), (100, None)]), None);
    // Pooled s² = (99·100·.05² + 49·50·.06²)/148, SE = √(s²/150).
    near(micro_standard_error(&[(100, Some(0.05)), (50, Some(0.06))]).unwrap(), 0.038_886_5, 1e-6);
}

#[test]
fn tasks_are_tested_together_once() {
    let differences = |n_up: usize, n_down: usize| {
        (0..100)
            .map(|i| {
                if i < n_up {
                    1.0
                } else if i < n_up + n_down {
                    -1.0
                } else {
                    0.0
                }
            })
            .collect::<Vec<f64>>()
    };
    // Seven to two in each of three tasks says little alone; together it is 21 to 6.
    let tasks: Vec<_> = (1..=3).map(|seed| sign_flip(&differences(7, 2), DRAWS, seed)).collect();
    assert!(tasks.iter().all(|task| task.p() > 0.05));
    let together = overall(&tasks).unwrap().p();
    near(together, mcnemar(Discordant { b: 21, c: 6 }), 0.004);
    // A loss that grows counts like an accuracy that falls only after orientation; opposite signs cancel.
    let mut opposed = sign_flip(&differences(7, 2), DRAWS, 9);
    opposed.observed = -opposed.observed;
    assert!(overall(&[tasks[0].clone(), opposed]).unwrap().p() > 0.5);
    assert_eq!(overall(&[sign_flip(&[0.0; 5], DRAWS, 1)]), None);
}

fn binary(n: usize, wrong: &[usize]) -> Items {
    Items::Binary((0..n).map(|item| !wrong.contains(&item)).collect())
}

#[test]
fn the_gate_passes_fails_and_does_not_know() {
    let baseline = binary(100, &[]);
    let judge = |candidate: &Items, margin: f64| judge(candidate, &baseline, margin, true, 1, SEED).unwrap();
    let same = judge(&baseline, 0.05);
    assert_eq!((same.verdict, same.identical), (Verdict::Pass, true));
    let spoiled = judge(&binary(100, &(0..40).collect::<Vec<_>>()), 0.05);
    assert_eq!(spoiled.verdict, Verdict::Fail);
    let open = judge(&binary(100, &[3, 4, 5]), 0.05);
    assert_eq!((open.verdict, open.identical), (Verdict::Inconclusive, false));
    // z.95 + z.8 = 2.486; variance of d .0294 + 2/102; distance .02.
    near(open.items_needed.unwrap() as f64, 6.1826 * (0.029_394 + 0.019_608) / 0.0004, 3.0);
    // A loss is turned round.
    let loss = |level: f64| Items::Ratio((0..50).map(|i| (level * (90 + i % 20) as f64, 100.0)).collect(), Scale::Bits);
    let worse = mergesweep::stats::gate::judge(&loss(0.9), &loss(0.5), 0.01, false, 1, SEED).unwrap();
    assert_eq!(worse.verdict, Verdict::Fail);
    let better = mergesweep::stats::gate::judge(&loss(0.5), &loss(0.9), 0.01, false, 1, SEED).unwrap();
    assert_eq!(better.verdict, Verdict::Pass);
}

#[test]
fn several_deciding_tasks_share_the_level_of_fail_and_not_that_of_pass() {
    // statistics.md 7: FAIL at .05/T, PASS at .05.
    let baseline = binary(400, &[]);
    let judge =
        |candidate: &Items, margin: f64, n_tests| judge(candidate, &baseline, margin, true, n_tests, SEED).unwrap();
    let worse = binary(400, &(0..20).collect::<Vec<_>>());
    let (alone, of_seven) = (judge(&worse, 1.0, 1).bounds.unwrap(), judge(&worse, 1.0, 7).bounds.unwrap());
    assert_eq!(alone.low, of_seven.low);
    assert!(alone.high < of_seven.high);
    assert_eq!(judge(&worse, -alone.low + 1e-9, 7).verdict, Verdict::Pass);
    let between = -(alone.high + of_seven.high) / 2.0;
    assert_eq!(judge(&worse, between, 1).verdict, Verdict::Fail);
    assert_eq!(judge(&worse, between, 7).verdict, Verdict::Inconclusive);
    // P[X >= 20], X ~ Binomial(20, .5).
    near(judge(&worse, 0.05, 7).p_worse.unwrap(), 0.5_f64.powi(20), 1e-18);
}

#[test]
fn margins_too_small_for_identical_answers_are_known_beforehand() {
    for (n, points) in [(100, 2.3), (40, 5.5), (20, 10.6)] {
        near(100.0 * smallest_margin(n, 1), points, 0.05);
    }
    for n_tests in [1, 7] {
        let needed = items_for_margin(0.03, n_tests);
        assert!(smallest_margin(needed, n_tests) < 0.03 && smallest_margin(needed - 1, n_tests) >= 0.03);
    }
    assert!(smallest_margin(100, 7) > smallest_margin(100, 1));
}
