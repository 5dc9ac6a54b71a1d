//! What races cost and miss, by the rule that runs use, on made-up siblings: how the defaults were chosen.
//!
//! Short here; the whole table, 1,000 studies a line, takes some minutes:
//!
//! ```text
//! MERGESWEEP_SIMULATE=1 cargo test --test it race_simulation -- --nocapture
//! ```

use mergesweep::search::race::{CONFIDENCE, RUNGS, Rule};
use mergesweep::search::simulate::{Outcome, SPREADS, Study};

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
