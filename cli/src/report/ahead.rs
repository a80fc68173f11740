//! What a run still takes: seconds and dollars to the steps that its command
//! plans, by its pace now. Of what is not known nothing is made up.

use proto::v1;
use serde::Serialize;

use crate::commands::analyze::live::hourly;
use crate::printer::{duration, money};

/// What is left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ahead {
    /// Steps that are planned in all.
    pub planned: u64,
    /// Seconds to the last of them.
    pub seconds: f64,
    /// US dollars that they cost; `None` where nobody bills.
    pub usd: Option<f64>,
}

impl Ahead {
    /// Of a run that goes on; `None` where its pace or its planned steps are not known.
    #[must_use]
    pub fn of(detail: &v1::RunDetail) -> Option<Self> {
        let run = detail.run.as_ref().filter(|run| run.ended_ms == 0)?;
        let rate = run.rate.filter(|rate| rate.is_finite() && *rate > 0.0)?;
        let spec: serde_json::Value = serde_json::from_str(&detail.spec_json).ok()?;
        let command = spec["command"].as_array()?.iter().filter_map(serde_json::Value::as_str);
        let given = curves::settings::of_command(command);
        let planned = curves::settings::planned(&given)?;
        let left = planned.saturating_sub(run.step?.saturating_add(1));
        if left == 0 {
            return None;
        }
        let seconds = left as f64 / rate;
        Some(Self { planned, seconds, usd: hourly(detail).map(|usd| usd * seconds / 3600.0) })
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
        let span = duration(self.seconds.clamp(0.0, 1e12) as u64);
        let cost = self.usd.map(|usd| format!(" and about {}", money(usd))).unwrap_or_default();
        format!("{span}{cost} to step {}", self.planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_time_and_money() {
        let of = |command: &[&str], ended_ms, usd_per_hour| {
            let machine = v1::MachineView {
                id: "m1".into(),
                state: "READY".into(),
                usd_per_hour,
                ..v1::MachineView::default()
            };
            let run = v1::RunView {
                machine: "m1".into(),
                step: Some(399),
                rate: Some(2.0),
                ended_ms,
                ..v1::RunView::default()
            };
            let spec_json = serde_json::json!({ "command": command }).to_string();
            Ahead::of(&v1::RunDetail {
                run: Some(run),
                machines: vec![machine],
                spec_json,
                ..v1::RunDetail::default()
            })
        };
        let planned = ["python", "train.py", "--max-steps", "4000"];
        assert_eq!(of(&planned, 0, 3.6).unwrap().text(), "30m 00s and about $1.80 to step 4000");
        assert_eq!(of(&planned, 0, 0.0).unwrap().text(), "30m 00s to step 4000");
        assert_eq!((of(&planned, 9, 3.6), of(&["python", "train.py"], 0, 3.6)), (None, None));
    }
}
