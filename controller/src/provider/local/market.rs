//! A played market on this computer: the first-boot script of a machine gets a
//! part before it that boots late, tells of the end as a host would, and then
//! cuts the power: everything that carries the machine's marker ends at once,
//! whoever controls it and whether anybody does.

use lifecycle::spec::{PlayedMarket, Taken};

use super::MARKER;
use crate::provider::CreateOutcome;

/// The file in a machine's state that its host writes its notice to, as its
/// agent reads it.
const NOTICE: &str = "host-notice";

/// Whether a machine is to be had now.
///
/// # Errors
/// The rejection.
pub(super) fn admits(market: &PlayedMarket, most: Option<f64>, now_ms: u64) -> Result<f64, CreateOutcome> {
    market.check().map_err(CreateOutcome::rejected)?;
    match market.at(now_ms) {
        (true, usd) if most.is_some_and(|most| usd > most) => {
            let why = format!("none for max_usd_per_hour: the played market asks ${usd:.2}/h");
            Err(CreateOutcome::rejected(why))
        }
        (true, usd) => Ok(usd),
        (false, _) => Err(CreateOutcome::rejected("no capacity (the played market)")),
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// The first-boot script of a machine that is made now, with its fate.
pub(super) fn boot(market: &PlayedMarket, machine: &str, script: &str, now_ms: u64) -> String {
    let mut before = String::from("#!/bin/sh\n");
    if let Some(taken) = market.takes(now_ms) {
        before.push_str(&end(machine, taken));
    }
    if market.boot_ms > 0 {
        before.push_str(&format!("sleep {}\n", seconds(market.boot_ms)));
    }
    before + script
}

/// Runs beside the machine, and carries its marker too: with a machine that is
/// destroyed it ends. As often as somebody is found: who is just being started
/// is not seen. It waits for a moment of the clock: a computer may sleep.
fn end(machine: &str, taken: Taken) -> String {
    let until = |ms: u64| format!("until [ \"$(date +%s%3N)\" -ge {ms} ]; do sleep 0.2; done\n");
    let tell = match taken.told_ms {
        Some(told_ms) => format!(
            "{}printf '{{\"until_unix_ms\": {}, \"text\": \"the played market takes it\"}}\\n' >{NOTICE}.new && mv {NOTICE}.new {NOTICE}\n",
            until(told_ms),
            taken.ends_ms,
        ),
        None => String::new(),
    };
    format!(
        "(\nself=$(exec sh -c 'echo \"$PPID\"')\n{tell}{wait}turn=0\nwhile [ $turn -lt 50 ]; do\n  turn=$((turn + 1)) found=\n  \
         for process in /proc/[0-9]*; do\n    own=${{process#/proc/}}\n    [ \"$own\" = \"$self\" ] && continue\n    \
         if grep -qzx '{MARKER}={machine}' \"$process/environ\" 2>/dev/null; then kill -9 \"$own\" 2>/dev/null && found=yes; fi\n  \
         done\n  [ -n \"$found\" ] || break\ndone\n) </dev/null >/dev/null 2>&1 &\n",
        wait = until(taken.ends_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::spec::MarketStep;

    fn market(ends: bool, notice_ms: u64) -> PlayedMarket {
        let step = MarketStep { at_ms: 9_500, capacity: false, usd_per_hour: 1.0, ends, notice_ms };
        PlayedMarket { begins_ms: 1_000, boot_ms: 250, hour_ms: 0, steps: vec![step] }
    }

    #[test]
    fn a_machine_is_had_while_the_market_gives_one() {
        assert!(matches!(admits(&market(true, 0), Some(0.5), 2_000), Ok(usd) if usd == 0.0));
        let Err(CreateOutcome::Rejected { reason, .. }) = admits(&market(true, 0), None, 10_500) else {
            panic!()
        };
        assert!(reason.contains("no capacity"), "{reason}");
        let odd = PlayedMarket { boot_ms: u64::MAX, ..PlayedMarket::default() };
        assert!(admits(&odd, None, 5).is_err());
        let dear = PlayedMarket {
            steps: vec![MarketStep {
                at_ms: 0,
                capacity: true,
                usd_per_hour: 1.0,
                ends: false,
                notice_ms: 0,
            }],
            ..PlayedMarket::default()
        };
        assert!(admits(&dear, Some(0.9), 5).is_err() && admits(&dear, Some(1.0), 5).is_ok());
    }

    #[test]
    fn its_script_boots_late_is_told_and_ends_at_its_time() {
        let script = boot(&market(true, 2_000), "abc", "#!/bin/sh\nexec guard\n", 3_000);
        assert!(script.ends_with("sleep 0.250\n#!/bin/sh\nexec guard\n"), "{script}");
        assert!(script.contains("-ge 8500 ]") && script.contains("\"until_unix_ms\": 10500"), "{script}");
        assert!(script.contains("-ge 10500 ]"), "{script}");
        assert!(script.contains("OUTLAST_MACHINE_ID=abc"), "{script}");
        let kept = boot(&market(false, 0), "abc", "x", 3_000);
        assert!(!kept.contains("kill"), "{kept}");
    }
}
