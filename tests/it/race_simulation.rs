//! What races cost and miss, by the rule that runs use, on made-up siblings: how the defaults were chosen.
//!
//! Short here; the whole table, 1,000 studies a line, takes some minutes:
//!
//! ```text
//! MERGESWEEP_SIMULATE=1 cargo test --test it race_simulation -- --nocapture
//! ```

use mergesweep::search::race::{CONFIDENCE, POINT_RUNGS, RUNGS, Rule};
use mergesweep::search::simulate::{Outcome, Placed, SPREADS, Study};

/// Share of answers asked, share of studies whose winner is that of all answers, and how far the winner's score is behind.
fn simulated(rule: &Rule, n_studies: u64, n_trials: usize, n_items: usize, spread: f64) -> [f64; 4] {
    let outcomes: Vec<Outcome> =
        (0..n_studies).map(|study| Study::new(study, n_trials, n_items, spread).race(rule)).collect();
    let mean = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64;
    [
        mean(&|outcome| outcome.used),
        mean(&|outcome| f64::from(u8::from(outcome.agrees))),
        mean(&|outcome| outcome.regret),
        mean(&|outcome| outcome.true_regret),
    ]
}

#[test]
fn the_defaults_ask_less_than_half_and_lose_next_to_nothing() {
    let is_long = std::env::var_os("MERGESWEEP_SIMULATE").is_some();
    let confidences = if is_long { vec![0.8, CONFIDENCE, 0.95] } else { vec![CONFIDENCE] };
    let (n_studies, sizes): (u64, &[usize]) = if is_long { (1_000, &[164, 1_319]) } else { (12, &[1_319]) };
    println!(
        "| rungs | confidence | items | trials | spread, points | asked | same winner | behind, points | truly, points |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for confidence in confidences {
        for n_items in sizes {
            for n_trials in [11, 30, 60] {
                for spread in SPREADS {
                    let rule = Rule { confidence, ..Rule::default() };
                    let [used, agrees, regret, truly] = simulated(&rule, n_studies, n_trials, *n_items, spread);
                    println!(
                        "| {RUNGS:?} | {confidence} | {n_items} | {n_trials} | {:.0} | {:.0} % | {:.1} % | {:.3} | {:.3} |",
                        100.0 * spread,
                        100.0 * used,
                        100.0 * agrees,
                        100.0 * regret,
                        100.0 * truly
                    );
                    if confidence == CONFIDENCE && *n_items == 1_319 {
                        assert!(used < 0.6 && regret < 0.002, "{used} {regret}");
                    }
                }
            }
        }
    }
}

/// Points placed one after the other (here at random) beside the best before them, the first two asked everything.
#[test]
fn points_beside_the_best_so_far_ask_less_and_lose_next_to_nothing() {
    let is_long = std::env::var_os("MERGESWEEP_SIMULATE").is_some();
    let all: Vec<&[f64]> = match is_long {
        true => vec![RUNGS, POINT_RUNGS, &[0.1, 0.3, 1.0], &[0.3, 1.0], &[0.2, 1.0]],
        false => vec![POINT_RUNGS],
    };
    let (n_studies, sizes): (u64, &[usize]) = if is_long { (1_000, &[164, 1_319]) } else { (12, &[1_319]) };
    println!(
        "| rungs | items | points | spread, points | asked | same winner | behind, points | told off by | own answers off by |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for rungs in all {
        for n_items in sizes {
            for n_points in [12, 30] {
                for spread in SPREADS {
                    let rule = Rule { rungs: rungs.to_vec(), ..Rule::default() };
                    let place = |study: u64| Study::new(study, n_points, *n_items, spread).place(&rule, 2);
                    let placed: Vec<Placed> = (0..n_studies).map(place).collect();
                    let mean = |of: &dyn Fn(&Outcome) -> f64| {
                        placed.iter().map(|placed| of(&placed.outcome)).sum::<f64>() / placed.len() as f64
                    };
                    let estimates: Vec<_> = placed.iter().flat_map(|placed| &placed.estimates).collect();
                    let off = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
                        let squares: f64 = estimates.iter().map(|one| (of(one) - one.0).powi(2)).sum();
                        100.0 * (squares / estimates.len().max(1) as f64).sqrt()
                    };
                    let (used, regret) = (mean(&|outcome| outcome.used), mean(&|outcome| outcome.regret));
                    println!(
                        "| {rungs:?} | {n_items} | {n_points} | {:.0} | {:.0} % | {:.1} % | {:.3} | {:.2} | {:.2} |",
                        100.0 * spread,
                        100.0 * used,
                        100.0 * mean(&|outcome| f64::from(u8::from(outcome.agrees))),
                        100.0 * regret,
                        off(&|one| one.1),
                        off(&|one| one.2),
                    );
                    if rungs == POINT_RUNGS && *n_items == 1_319 {
                        assert!(used < 0.9 && regret < 0.003, "{used} {regret}");
                    }
                }
            }
        }
    }
}
