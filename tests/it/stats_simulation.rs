//! Simulated siblings: how often each test raises a false alarm, how often each interval holds the truth, and what pairing
//! finds that the usual unpaired comparison misses.
//!
//! Takes a minute or more, so it runs only where it is asked for, and prints its tables:
//!
//! ```text
//! MERGESWEEP_SIMULATE=1 cargo test --test it stats_simulation -- --nocapture
//! ```

use mergesweep::stats::binary::{Discordant, bonett_price, mcnemar};
use mergesweep::stats::compare::{bounds, draws};
use mergesweep::stats::distribution::normal_quantile;
use mergesweep::stats::gate::{Verdict, judge};
use mergesweep::stats::interval::{clopper_pearson, two_sided_z, wilson};
use mergesweep::stats::multiple::holm;
use mergesweep::stats::permutation::overall;
use mergesweep::stats::random::word;
use mergesweep::stats::ratio::Scale;
use mergesweep::stats::seeds::summarise;
use mergesweep::stats::{Interval, Items};

const DRAWS: u64 = 2_000;

/// Random numbers of one simulated study.
struct Random {
    study: u64,
    place: u64,
}

impl Random {
    fn uniform(&mut self) -> f64 {
        self.place += 1;
        (word(6, self.study, self.place) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        normal_quantile(self.uniform().clamp(1e-9, 1.0 - 1e-9))
    }

    /// Two siblings right or wrong: they part on a share `psi` of items, and the first is better by `delta`.
    fn siblings(&mut self, n: usize, right: f64, psi: f64, delta: f64) -> (Vec<bool>, Vec<bool>) {
        (0..n)
            .map(|_| match self.uniform() {
                u if u < (psi + delta) / 2.0 => (true, false),
                u if u < psi => (false, true),
                _ => {
                    let both = self.uniform() < right;
                    (both, both)
                }
            })
            .unzip()
    }

    /// Two siblings with losses over documents of unequal length; the first is worse by `shift` nats a unit.
    fn losses(&mut self, n: usize, shift: f64) -> (Items, Items) {
        let documents: Vec<_> = (0..n)
            .map(|_| {
                let units = 20.0 + 500.0 * self.uniform().powi(2);
                let shared = 0.6 + 0.2 * self.normal();
                let mut own = |shift: f64| ((shared + shift + 0.03 * self.normal()).max(0.01) * units, units);
                (own(shift), own(0.0))
            })
            .collect();
        let (a, b) = documents.into_iter().unzip();
        (Items::Ratio(a, Scale::Bits), Items::Ratio(b, Scale::Bits))
    }

    fn graded(&mut self, n: usize) -> (Items, Items) {
        let mut answer = |base: f64| (base + 0.1 * self.normal()).clamp(0.0, 1.0);
        let pairs: Vec<_> = (0..n).map(|i| (answer((i % 10) as f64 / 10.0), answer((i % 10) as f64 / 10.0))).collect();
        let (a, b) = pairs.into_iter().unzip();
        (Items::Graded(a), Items::Graded(b))
    }
}

/// The share of studies in which something happens.
fn share(name: &str, happens: impl Fn(&mut Random) -> bool) -> f64 {
    let salt = name.bytes().fold(0_u64, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let study = |draw: u64| happens(&mut Random { study: salt.wrapping_add(draw), place: 0 });
    (0..DRAWS).filter(|draw| study(*draw)).count() as f64 / DRAWS as f64
}

/// Three standard deviations of a share of 5 % over the studies.
fn slack() -> f64 {
    3.0 * (0.05 * 0.95 / DRAWS as f64).sqrt()
}

/// A permutation p-value of few draws, as good for a rate.
fn p(a: &Items, b: &Items) -> f64 {
    draws(a, b, 999, 1).unwrap().p()
}

fn binary(items: (Vec<bool>, Vec<bool>)) -> (Items, Items) {
    (Items::Binary(items.0), Items::Binary(items.1))
}

#[test]
fn rates_are_nominal_where_they_are_asked_for() {
    if std::env::var_os("MERGESWEEP_SIMULATE").is_none() {
        eprintln!("skipped: takes minutes; set MERGESWEEP_SIMULATE=1 to simulate");
        return;
    }
    false_alarms();
    coverage();
    power();
}

fn false_alarms() {
    eprintln!("\n| test | n | false alarms at .05 |\n| --- | --: | --: |");
    let tell = |name: &str, n: usize, rate: f64| {
        eprintln!("| {name} | {n} | {rate:.4} |");
        assert!(rate <= 0.05 + slack(), "{name}, n = {n}: {rate}");
    };
    for n in [100, 164] {
        tell(
            "McNemar exact",
            n,
            share(&format!("mcnemar {n}"), |r| {
                let (a, b) = r.siblings(n, 0.6, 0.1, 0.0);
                mcnemar(Discordant::of(&a, &b)) < 0.05
            }),
        );
        tell(
            "sign flips, graded",
            n,
            share(&format!("sign {n}"), |r| {
                let (a, b) = r.graded(n);
                p(&a, &b) < 0.05
            }),
        );
        tell(
            "swap, bits per byte",
            n,
            share(&format!("swap {n}"), |r| {
                let (a, b) = r.losses(n, 0.0);
                p(&a, &b) < 0.05
            }),
        );
        tell(
            "all tasks (two accuracies, one loss)",
            n,
            share(&format!("all {n}"), |r| {
                let tasks =
                    [binary(r.siblings(n, 0.6, 0.1, 0.0)), binary(r.siblings(n, 0.3, 0.2, 0.0)), r.losses(n, 0.0)];
                let drawn: Vec<_> =
                    tasks.iter().enumerate().map(|(seed, (a, b))| draws(a, b, 999, seed as u64).unwrap()).collect();
                overall(&drawn).is_some_and(|all| all.p() < 0.05)
            }),
        );
        tell(
            "McNemar + Holm, any of 12 siblings",
            n,
            share(&format!("holm {n}"), |r| {
                let base: Vec<bool> = (0..n).map(|_| r.uniform() < 0.6).collect();
                let p: Vec<f64> = (0..12)
                    .map(|_| {
                        let own: Vec<bool> = base.iter().map(|right| *right != (r.uniform() < 0.08)).collect();
                        let reference: Vec<bool> = base.iter().map(|right| *right != (r.uniform() < 0.08)).collect();
                        mcnemar(Discordant::of(&own, &reference))
                    })
                    .collect();
                holm(&p).into_iter().any(|p| p < 0.05)
            }),
        );
        for (k, sd) in [(3, 0.0), (3, 0.03), (5, 0.06)] {
            tell(
                &format!("two recipes, {k} seeds, seed SD {sd}"),
                n,
                share(&format!("recipes {k} {sd} {n}"), |r| {
                    let difficulty: Vec<f64> = (0..n).map(|_| 0.3 + 0.6 * r.uniform()).collect();
                    let differences: Vec<Vec<f64>> = (0..k)
                        .map(|_| {
                            let shift = sd * (r.normal() - r.normal());
                            let one = |r: &mut Random, p: f64| f64::from(u8::from(r.uniform() < p));
                            difficulty.iter().map(|p| one(r, p + shift) - one(r, *p)).collect()
                        })
                        .collect();
                    summarise(&differences).unwrap().p().unwrap() < 0.05
                }),
            );
        }
        for (what, wanted) in [("FAIL", Verdict::Fail), ("PASS", Verdict::Pass)] {
            // The truth lies on the margin: either answer is wrong as often as .05 at most.
            tell(
                &format!("gate says {what}, true loss = margin .06"),
                n,
                share(&format!("{what} {n}"), |r| {
                    let (a, b) = binary(r.siblings(n, 0.6, 0.15, -0.06));
                    judge(&a, &b, 0.06, true, 1, 1).unwrap().verdict == wanted
                }),
            );
        }
    }
}

fn coverage() {
    eprintln!("\n| interval (nominal .95) | case | n = 100 | n = 164 |\n| --- | --- | --: | --: |");
    let holds = |interval: Option<Interval>, truth: f64| interval.is_some_and(|i| i.low <= truth && truth <= i.high);
    let tell = |name: &str, case: &str, rates: [f64; 2], least: f64| {
        eprintln!("| {name} | {case} | {:.3} | {:.3} |", rates[0], rates[1]);
        assert!(rates.iter().all(|rate| *rate >= least), "{name}, {case}: {rates:?}");
    };
    for p in [0.5, 0.6, 0.9, 0.98] {
        let right = |r: &mut Random, n: usize| (0..n).filter(|_| r.uniform() < p).count() as u64;
        let of = |interval: &dyn Fn(u64, u64, f64) -> Option<Interval>, name: &str| {
            [100, 164].map(|n| share(&format!("{name} {p} {n}"), |r| holds(interval(right(r, n), n as u64, 0.95), p)))
        };
        // Wilson's actual coverage swings around the nominal one.
        tell("Wilson", &format!("p = {p}"), of(&wilson, "wilson"), 0.91);
        tell("Clopper-Pearson", &format!("p = {p}"), of(&clopper_pearson, "cp"), 0.95 - slack());
    }
    for (b, c) in [(0.02, 0.01), (0.08, 0.03), (0.15, 0.05)] {
        let (psi, delta) = (b + c, b - c);
        let rates = [100, 164].map(|n| {
            share(&format!("bp {psi} {n}"), |r| {
                let (x, y) = r.siblings(n, 0.6, psi, delta);
                holds(Some(bonett_price(Discordant::of(&x, &y), n as u64, two_sided_z(0.95))), delta)
            })
        });
        tell("Bonett-Price, difference", &format!("discordant {b} : {c}"), rates, 0.95 - slack());
    }
    let truth = 0.02 / std::f64::consts::LN_2;
    let rates = [100, 164].map(|n| {
        share(&format!("loss {n}"), |r| {
            let (a, b) = r.losses(n, 0.02);
            holds(bounds(&a, &b, 1.96, 0.975, 1), truth)
        })
    });
    tell("delta method with t, bits per byte", "difference", rates, 0.93);
    for (k, sd) in [(2, 0.03), (3, 0.03), (3, 0.0), (5, 0.06)] {
        let interval = |r: &mut Random, n: usize| {
            let difficulty: Vec<f64> = (0..n).map(|_| 0.3 + 0.6 * r.uniform()).collect();
            let of_seed = |r: &mut Random| {
                let shift = sd * r.normal();
                difficulty.iter().map(|p| f64::from(u8::from(r.uniform() < p + shift))).collect()
            };
            let seeds: Vec<Vec<f64>> = (0..k).map(|_| of_seed(r)).collect();
            summarise(&seeds).unwrap()
        };
        let rates =
            [100, 164].map(|n| share(&format!("seeds {k} {sd} {n}"), |r| holds(interval(r, n).interval(), 0.6)));
        let by_z = [100, 164].map(|n| {
            share(&format!("seeds {k} {sd} {n}"), |r| {
                let summary = interval(r, n);
                holds(summary.stderr.map(|stderr| Interval::around(summary.mean, 1.96 * stderr)), 0.6)
            })
        });
        tell("t over merge seeds", &format!("{k} seeds, seed SD {sd}"), rates, 0.93);
        tell("(z in its place)", &format!("{k} seeds, seed SD {sd}"), by_z, 0.0);
    }
    let rate = share("bootstrap", |r| {
        let (a, b) = r.losses(200, 0.02);
        holds(bounds(&a, &b, 1.96, 0.975, 1), truth)
    });
    eprintln!("| paired bootstrap, bits per byte | difference, n = 200 | {rate:.3} | |");
    assert!(rate >= 0.92, "{rate}");
}

fn power() {
    eprintln!(
        "\n| n | discordant | true difference | found: paired, exact | found: unpaired z |\n| --: | --: | --: | --: | --: |"
    );
    for (n, psi, delta) in
        [(100, 0.1, 0.05), (100, 0.2, 0.128), (164, 0.1, 0.05), (164, 0.1, 0.07), (164, 0.2, 0.101), (1319, 0.1, 0.025)]
    {
        let rate = |finds: &dyn Fn(&[bool], &[bool]) -> bool| {
            share(&format!("power {n} {psi} {delta}"), |r| {
                let (a, b) = r.siblings(n, 0.6, psi, delta);
                finds(&a, &b)
            })
        };
        let paired = rate(&|a, b| mcnemar(Discordant::of(a, b)) < 0.05);
        let unpaired = rate(&|a, b| {
            let mean = |of: &[bool]| of.iter().filter(|right| **right).count() as f64 / n as f64;
            let error = |p: f64| p * (1.0 - p) / (n - 1) as f64;
            let (p, q) = (mean(a), mean(b));
            (p - q).abs() > 1.959_964 * (error(p) + error(q)).sqrt()
        });
        eprintln!("| {n} | {psi} | {delta} | {:.0} % | {:.0} % |", 100.0 * paired, 100.0 * unpaired);
        assert!(paired >= unpaired, "pairing finds no less");
    }
}
