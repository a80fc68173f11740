//! Measures the detectors on generated trainings:
//! `cargo run --release -p curves --example detectors -- [RUNS_OF_EACH] [SEED] [LENGTHS]`
//!
//! Prints the tables of `docs/detectors.md`; `bound` before the numbers prints what an observer who knows all but the answer
//! would reach; `memory` measures memory and time, names of CSV files tell what is said of them; `reports` before the numbers or
//! before names of files prints whole reports, to compare two builds. With `EXAMPLES=kind` on standard
//! error what was missed or wrong; `ONLY=kind,kind` plants these alone.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for its output")]

mod bound;
mod corpus;
mod csv;
mod judged;
mod measure;
mod reports;

use corpus::Plan;
use curves::judge::Kind;
use measure::{Tally, measure, plans};

const SIGMAS: [f64; 3] = [0.05, 0.1, 0.3];

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if std::env::args().nth(1).as_deref() == Some("memory") {
        memory();
        return;
    }
    if std::env::args().nth(1).is_some_and(|a| a.ends_with(".csv")) {
        println!("| training | health | labels | findings |\n|---|---|---|---|");
        for path in arguments {
            let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".csv");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            println!("{}", csv::row(name, &csv::judged(&text)));
        }
        return;
    }
    let bounds = arguments.next_if(|a| a == "bound").is_some();
    let whole = arguments.next_if(|a| a == "reports").is_some();
    if whole && arguments.peek().is_some_and(|a| a.parse::<u64>().is_err()) {
        arguments.for_each(|path| reports::of_file(&path));
        return;
    }
    let of_each: u64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(16);
    let seed: u64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1);
    let lengths = arguments.next().unwrap_or_else(|| "300,3000,30000".into());
    let lengths: Vec<u64> = lengths.split(',').filter_map(|l| l.parse().ok()).collect();
    let mut all = Vec::new();
    for &steps in &lengths {
        let of_each = if steps > 10_000 { of_each / 2 } else { of_each };
        all.extend(SIGMAS.iter().flat_map(|sigma| plans(steps, *sigma, of_each.max(1), seed)));
    }
    if let Ok(only) = std::env::var("ONLY") {
        all.retain(|plan| plan.fault.is_some_and(|kind| only.split(',').any(|name| name == kind.name())));
    }
    if whole {
        all.iter().for_each(reports::of_plan);
        return;
    }
    if bounds {
        print_bounds(&all, &lengths);
        return;
    }
    let (mut tally, mut decided) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                let all = &all;
                scope.spawn(move || {
                    let (mut tally, mut decided) = (Tally::default(), Tally::default());
                    for plan in all.iter().skip(half).step_by(2) {
                        let mut one = Tally::default();
                        measure(plan, &mut one);
                        if bound::decidable(plan) {
                            decided.add(one.clone());
                        }
                        tally.add(one);
                    }
                    (tally, decided)
                })
            })
            .collect();
        for half in halves {
            if let Ok((all, some)) = half.join() {
                tally.add(all);
                decided.add(some);
            }
        }
    });
    print(&tally, &decided, &lengths, all.len());
    if let Ok(kind) = std::env::var("EXAMPLES") {
        tally.examples.iter().filter(|e| e.contains(&kind)).take(4000).for_each(|e| eprintln!("{e}"));
    }
}

fn print(tally: &Tally, decided: &Tally, lengths: &[u64], runs: usize) {
    println!("{runs} runs\n");
    println!(
        "| detector | planted | recall | recall within 1 % | of those decidable | step error median / p95 | precision | recall within 1 % at sigma 0.05 / 0.1 / 0.3 | and at {lengths:?} steps |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for kind in Kind::ALL {
        let (sum, some) = (tally.sum(kind, |_, _| true), decided.sum(kind, |_, _| true));
        let by_sigma: Vec<String> = SIGMAS
            .iter()
            .map(|s| format!("{:.2}", tally.sum(kind, |k, _| k == measure::key(*s)).placed_share()))
            .collect();
        let by_length: Vec<String> = lengths
            .iter()
            .map(|l| format!("{:.2}", tally.sum(kind, |_, n| n == *l).placed_share()))
            .collect();
        println!(
            "| {} | {} | {:.3} | {:.3} | {:.3} ({}) | {:.4} / {:.4} | {:.3} | {} | {} |",
            kind.name(),
            sum.planted,
            sum.recall(),
            sum.placed_share(),
            some.placed_share(),
            some.planted,
            sum.error(0.5),
            sum.error(0.95),
            sum.precision(),
            by_sigma.join(" / "),
            by_length.join(" / ")
        );
    }
    print_found(tally, lengths);
    println!(
        "\n| healthy runs | {} |",
        lengths.iter().map(|l| format!("{l} steps")).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}", "---|".repeat(lengths.len()));
    for (sigma, smoothed) in SIGMAS.into_iter().flat_map(|sigma| [(sigma, false), (sigma, true)]) {
        let cells: Vec<String> = lengths
            .iter()
            .map(|l| tally.healthy.get(&(measure::key(sigma), *l, smoothed)).copied().unwrap_or_default())
            .map(|(runs, alarmed)| format!("{alarmed} of {runs} with a false alarm"))
            .collect();
        let loss = if smoothed { ", smoothed" } else { "" };
        println!("| sigma {sigma}{loss} | {} |", cells.join(" | "));
    }
}

/// What is found at all, and what is found and dated within 1 %, at each noise and length, of the
/// kinds of which not nearly all is.
fn print_found(tally: &Tally, lengths: &[u64]) {
    println!("\n| found / within 1 % | steps | sigma 0.05 | sigma 0.1 | sigma 0.3 |\n|---|---|---|---|---|");
    for kind in Kind::ALL {
        let all = tally.sum(kind, |_, _| true);
        if all.planted == 0 || all.placed_share() >= 0.95 {
            continue;
        }
        for &steps in lengths {
            let cells = SIGMAS.map(|sigma| {
                let cell = tally.sum(kind, |k, n| k == measure::key(sigma) && n == steps);
                format!("{:.2} / {:.2}", cell.recall(), cell.placed_share())
            });
            println!("| {} | {steps} | {} |", kind.name(), cells.join(" | "));
        }
    }
}

/// What an observer who knows all but the answer would reach, and one who knows neither size nor level.
fn print_bounds(all: &[Plan], lengths: &[u64]) {
    println!(
        "| detector | best possible | at sigma 0.05 / 0.1 / 0.3 | and at {lengths:?} steps |\n|---|---|---|---|"
    );
    for kind in Kind::ALL {
        print_bound(kind.name(), all, kind, lengths, bound::best_possible);
        print_bound(
            &format!("{}, size and level unknown", kind.name()),
            all,
            kind,
            lengths,
            bound::without_size,
        );
    }
}

fn print_bound(name: &str, all: &[Plan], kind: Kind, lengths: &[u64], of: fn(&Plan) -> Option<f64>) {
    let of_kind = all.iter().filter(|p| p.fault == Some(kind));
    let reached: Vec<(&Plan, f64)> = of_kind.filter_map(|p| Some((p, of(p)?))).collect();
    if reached.is_empty() {
        return;
    }
    let share = |keep: &dyn Fn(&Plan) -> bool| {
        let kept: Vec<f64> = reached.iter().filter(|(p, _)| keep(p)).map(|(_, r)| *r).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    let by_sigma = SIGMAS.map(|s| format!("{:.2}", share(&|p| p.sigma == s)));
    let by_length: Vec<String> =
        lengths.iter().map(|l| format!("{:.2}", share(&|p| p.steps == *l))).collect();
    println!("| {name} | {:.3} | {} | {} |", share(&|_| true), by_sigma.join(" / "), by_length.join(" / "));
}

/// Most memory and the time that a judge takes for as many losses as it may
/// have, and for one run of a million steps.
fn memory() {
    let held = |key: &str| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned()
    };
    println!("before: {}", held("VmRSS"));
    let mut judge = curves::judge::Judge::new(curves::judge::Settings::default());
    let mut random = fastrand::Rng::with_seed(1);
    let begun = std::time::Instant::now();
    let ids: Vec<_> = (0..1000).map(|i| judge.metric(&format!("train/loss_{i}"))).collect();
    for step in 0..3000 {
        for id in &ids {
            judge.point(*id, Some(step), Some(step as f64), 1.0 + random.f64());
        }
    }
    println!("1,000 losses of 3,000 points in {:?}: {}", begun.elapsed(), held("VmRSS"));
    let begun = std::time::Instant::now();
    let report = judge.report();
    println!(
        "a report on them ({} findings) in {:?}: {}",
        report.findings.len(),
        begun.elapsed(),
        held("VmHWM")
    );
    let mut judge = curves::judge::Judge::new(curves::judge::Settings::default());
    let begun = std::time::Instant::now();
    let ids = ["train/loss", "grad_norm", "lr", "tokens_per_second"].map(|m| judge.metric(m));
    for step in 0..1_000_000_u64 {
        for id in ids {
            judge.point(id, Some(step), Some(step as f64), 1.0 + random.f64());
        }
    }
    println!("4 metrics of 1,000,000 points in {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    let report = judge.report();
    println!("a report on them ({} findings) in {:?}", report.findings.len(), begun.elapsed());
    for name in ["train/loss", "val/loss", "grad_norm", "lr", "accuracy", "tokens_per_second", "something"] {
        println!("{name}: {:.3} us a point", a_point_of(name));
    }
    reports();
}

/// Microseconds of processor time that a point of one metric takes in a long run; the least of
/// several runs, which other work on the computer lengthened least.
fn a_point_of(name: &str) -> f64 {
    const POINTS: u64 = 200_000;
    let mut random = fastrand::Rng::with_seed(2);
    let values: Vec<f64> = (0..POINTS).map(|_| 1.0 + 0.2 * (random.f64() + random.f64() - 1.0)).collect();
    let taken = (0..9).map(|_| {
        let mut judge = curves::judge::Judge::new(curves::judge::Settings::default());
        let id = judge.metric(name);
        let begun = judged::processor_seconds();
        (0..).zip(&values).for_each(|(step, value)| judge.point(id, Some(step), None, *value));
        (judged::processor_seconds() - begun) * 1e6 / POINTS as f64
    });
    taken.fold(f64::MAX, f64::min)
}

/// The time of a report on runs of 6 metrics with every fault.
fn reports() {
    let (mut all, mut worst) = (Vec::new(), (std::time::Duration::ZERO, ""));
    for plan in plans(3000, 0.1, 8, 3) {
        let mut judge = curves::judge::Judge::new(curves::judge::Settings::default());
        corpus::play(&plan, &mut judge);
        let begun = std::time::Instant::now();
        let report = judge.report();
        let took = begun.elapsed();
        all.push(took);
        if took > worst.0 && !report.metrics.is_empty() {
            worst = (took, plan.fault.map_or("healthy", Kind::name));
        }
    }
    all.sort_unstable();
    println!(
        "reports on {} runs of 3,000 steps: median {:?}, longest {:?} ({})",
        all.len(),
        all[all.len() / 2],
        worst.0,
        worst.1
    );
}
