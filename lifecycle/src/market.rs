//! On which market a run should be now: a spot machine, an on-demand machine,
//! or none while it waits. Pure. Three rules of others stand beside ours for
//! comparison; all of them keep the same safety net: where on-demand machines
//! can be had, no rule lets a deadline pass.
//!
//! Uniform Progress is the rule of "Can't Be Late: Optimizing Spot Instance
//! Savings under Deadlines" (NSDI '24). Decision 0040 says where ours differs
//! and why.

use serde::{Deserialize, Serialize};

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// On-demand from the beginning to the end.
    OnDemand,
    /// Spot while there is any, else wait until only on-demand can meet the
    /// deadline, and then stay on it.
    Greedy,
    /// Keep to the line from nothing now to everything at the deadline.
    UniformProgress,
    /// Wait while there is time to spare, and keep back what coming and going
    /// will cost, so that spot machines can be used to the end.
    Ours,
}

/// Where a run is, or should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On no machine.
    Nowhere,
    /// On a machine that may be taken back.
    Spot,
    /// On one that is kept.
    OnDemand,
}

/// What goes wrong and how long that takes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// From a loss until it is known.
    pub detect_s: f64,
    /// From the wish for a machine to the program's going on there.
    pub start_s: f64,
    /// One save.
    pub save_s: f64,
    /// Work that is lost with a machine at most: from save to save.
    pub unsaved_s: f64,
    /// Between two looks at the market while nothing is to be had.
    pub look_s: f64,
}

impl Delays {
    /// What a loss now and an on-demand machine afterwards take together.
    fn loss_s(&self) -> f64 {
        self.detect_s + self.unsaved_s + self.save_s + self.start_s
    }

    /// What it takes to leave a machine for another and be on it again.
    fn change_s(&self) -> f64 {
        self.save_s + self.start_s
    }

    /// What one round from on-demand to spot, a loss there, and back takes of
    /// the time to spare, in the mean.
    fn round_s(&self) -> f64 {
        self.change_s() + self.detect_s + self.unsaved_s / 2.0 + self.start_s
    }
}

/// All that a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Seconds since the run began.
    pub now_s: f64,
    /// Seconds after its beginning at which it must have ended.
    pub deadline_s: Option<f64>,
    /// Seconds of work in all; endless where nobody knows.
    pub work_s: f64,
    /// Seconds of it done, if nothing is lost now.
    pub done_s: f64,
    /// Where it is.
    pub on: Place,
    /// A spot machine could be had now.
    pub spot: bool,
    /// Dollars an hour of a spot machine.
    pub spot_usd: f64,
    /// Dollars an hour of an on-demand machine.
    pub on_demand_usd: f64,
    /// Mean time between losses of spot machines, in seconds.
    pub between_losses_s: f64,
    /// Machines that may still be made within the hour.
    pub creates_left: u32,
    /// How long things take.
    pub delays: Delays,
}

impl View {
    fn left_s(&self) -> f64 {
        (self.work_s - self.done_s).max(0.0)
    }

    /// Seconds to spare if it computed from now on without a break. Saves on
    /// the way are taken off: a part of a thousand, and one.
    fn slack_s(&self) -> f64 {
        let Some(deadline) = self.deadline_s else { return f64::INFINITY };
        deadline - self.now_s - self.left_s() * (1.0 + SAVING) - self.delays.save_s - MARGIN_S
    }

    /// Whether a spot machine may be tried from where it is: it may be lost as
    /// soon as it is there, and on-demand must still be in time.
    fn dares(&self) -> bool {
        let made = self.deadline_s.is_none() || self.creates_left >= 2;
        made && self.slack_s() >= self.delays.change_s() + self.delays.loss_s()
    }

    /// Whether it must not be on a spot machine any longer.
    fn must_leave(&self) -> bool {
        self.slack_s() < self.delays.loss_s()
    }

    /// Whether it cannot wait until the next look.
    fn must_start(&self) -> bool {
        self.slack_s() < self.delays.start_s + self.delays.look_s
    }

    /// Seconds of work that Uniform Progress wants done at `at_s`.
    fn expected_s(&self, at_s: f64) -> f64 {
        self.deadline_s.map_or(0.0, |deadline| self.work_s * (at_s / deadline.max(1.0)).min(1.0))
    }
}

/// Part of the work on an on-demand machine that its own saves take.
const SAVING: f64 = 0.003;
/// Against what nobody thought of.
const MARGIN_S: f64 = 10.0;
/// Most of the time to spare that ours keeps back for coming and going.
const KEPT_BACK: f64 = 0.5;

/// Where the run should be now.
#[must_use]
pub fn decide(rule: Rule, view: &View) -> Place {
    if rule == Rule::OnDemand {
        return Place::OnDemand;
    }
    let spot = match view.on {
        Place::Spot if view.must_leave() => return Place::OnDemand,
        // Whoever has a spot machine keeps it until it is lost.
        Place::Spot => return Place::Spot,
        Place::Nowhere | Place::OnDemand => view.spot && view.dares(),
    };
    match rule {
        _ if view.on == Place::Nowhere && view.must_start() && !spot => Place::OnDemand,
        // There is spot, and no time any more to lose such a machine.
        _ if view.on == Place::Nowhere && view.spot && !spot => Place::OnDemand,
        Rule::Greedy if spot && view.on == Place::Nowhere => Place::Spot,
        Rule::Greedy => view.on,
        Rule::UniformProgress => uniform_progress(view, spot),
        Rule::Ours => ours(view, spot),
        Rule::OnDemand => Place::OnDemand,
    }
}

fn uniform_progress(view: &View, spot: bool) -> Place {
    if spot {
        return Place::Spot;
    }
    let ahead = match view.on {
        // Hysteresis: by two changes, before on-demand is left.
        Place::OnDemand => {
            !view.must_start()
                && view.done_s >= view.expected_s(view.now_s + 2.0 * view.delays.change_s())
                && view.dares()
        }
        _ => view.done_s >= view.expected_s(view.now_s),
    };
    if ahead { Place::Nowhere } else { Place::OnDemand }
}

fn ours(view: &View, spot: bool) -> Place {
    if spot && worthwhile(view) {
        return Place::Spot;
    }
    match view.on {
        Place::OnDemand => Place::OnDemand,
        _ if view.slack_s() > kept_back_s(view) => Place::Nowhere,
        _ => Place::OnDemand,
    }
}

/// Whether a spot machine spares more in its mean life than it takes to get
/// onto it.
fn worthwhile(view: &View) -> bool {
    let spared = (view.on_demand_usd - view.spot_usd) * view.between_losses_s.min(view.left_s());
    view.on != Place::OnDemand || spared > view.spot_usd * view.delays.change_s()
}

/// Seconds to spare that are not waited away: what the losses still to come
/// will take, so that on-demand machines can be left whenever there is spot.
fn kept_back_s(view: &View) -> f64 {
    let floor = view.delays.change_s() + view.delays.loss_s() + view.delays.look_s;
    let losses = view.left_s() / view.between_losses_s.max(1.0);
    let Some(deadline) = view.deadline_s else { return 0.0 };
    let most = (deadline - view.work_s).max(0.0) * KEPT_BACK;
    floor + (losses * view.delays.round_s()).min(most)
}

/// What an hour of useful work costs on a machine of this price.
#[must_use]
pub fn usd_per_useful_hour(usd_per_hour: f64, wasted: f64) -> f64 {
    usd_per_hour / (1.0 - wasted).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: f64 = 3_600.0;

    /// Ten hours of work, twenty to the deadline, nothing done, on no machine.
    fn view() -> View {
        View {
            now_s: 0.0,
            deadline_s: Some(20.0 * HOUR),
            work_s: 10.0 * HOUR,
            done_s: 0.0,
            on: Place::Nowhere,
            spot: false,
            spot_usd: 0.9,
            on_demand_usd: 3.0,
            between_losses_s: 2.0 * HOUR,
            creates_left: 6,
            delays: Delays { detect_s: 10.0, start_s: 90.0, save_s: 5.0, unsaved_s: 265.0, look_s: 60.0 },
        }
    }

    #[test]
    fn each_rule_in_each_situation_that_has_a_name() {
        use Place::{Nowhere as N, OnDemand as D, Spot as S};
        let idle = view();
        let spot = View { spot: true, ..idle };
        // Five hours in and nothing done: behind the line, with time to spare.
        let behind = View { now_s: 5.0 * HOUR, ..idle };
        // Five minutes to spare.
        let tight = View { now_s: 10.0 * HOUR - 400.0, ..idle };
        let on = |place, view: View| View { on: place, ..view };
        let ahead = View { now_s: 5.0 * HOUR, done_s: 4.0 * HOUR, ..idle };
        for (what, view, wanted) in [
            // (situation, view, [greedy, uniform progress, ours])
            ("no spot yet", idle, [N, N, N]),
            ("spot", spot, [S, S, S]),
            ("behind, no spot", behind, [N, D, N]),
            ("behind, spot", View { spot: true, ..behind }, [S, S, S]),
            ("no time left", View { now_s: 10.0 * HOUR, ..idle }, [D, D, D]),
            ("little time left and spot", View { spot: true, ..tight }, [D, D, D]),
            ("on spot and behind", on(S, behind), [S, S, S]),
            ("on spot, no time to lose it", on(S, tight), [D, D, D]),
            ("on-demand and ahead, no spot", on(D, ahead), [D, N, D]),
            ("on-demand and behind, spot", View { spot: true, ..on(D, behind) }, [D, S, S]),
            ("on-demand, no time to come back", View { spot: true, ..on(D, tight) }, [D, D, D]),
            ("one machine left within the hour", View { creates_left: 1, ..spot }, [D, D, D]),
        ] {
            let got = [Rule::Greedy, Rule::UniformProgress, Rule::Ours].map(|rule| decide(rule, &view));
            assert_eq!(got, wanted, "{what}");
            assert_eq!(decide(Rule::OnDemand, &view), D);
        }
    }

    #[test]
    fn without_a_deadline_nothing_dear_is_taken() {
        let free = View { deadline_s: None, work_s: f64::INFINITY, ..view() };
        for rule in [Rule::Greedy, Rule::UniformProgress, Rule::Ours] {
            assert_eq!(decide(rule, &free), Place::Nowhere);
            assert_eq!(decide(rule, &View { spot: true, creates_left: 0, ..free }), Place::Spot);
        }
    }

    #[test]
    fn ours_changes_to_spot_only_where_that_pays() {
        let on = View { on: Place::OnDemand, spot: true, ..view() };
        assert_eq!(decide(Rule::Ours, &on), Place::Spot);
        assert_eq!(decide(Rule::Ours, &View { spot_usd: 3.1, ..on }), Place::OnDemand, "dearer");
        assert_eq!(
            decide(Rule::Ours, &View { between_losses_s: 20.0, ..on }),
            Place::OnDemand,
            "gone at once"
        );
        let done = View { done_s: 10.0 * HOUR - 20.0, ..on };
        assert_eq!(decide(Rule::Ours, &done), Place::OnDemand, "nearly done");
    }

    #[test]
    fn ours_keeps_back_what_coming_and_going_will_take() {
        // Two hours to spare are waited away only in part: five losses to come.
        let early = View { now_s: 8.0 * HOUR, ..view() };
        assert_eq!(decide(Rule::Ours, &early), Place::Nowhere);
        let late = View { now_s: 9.6 * HOUR, ..view() };
        assert_eq!(decide(Rule::Ours, &late), Place::OnDemand);
        assert_eq!(decide(Rule::Greedy, &late), Place::Nowhere);
    }

    fn views() -> impl Strategy<Value = View> {
        let places = prop::sample::select(vec![Place::Nowhere, Place::Spot, Place::OnDemand]);
        (
            0.0f64..40.0,
            0.5f64..40.0,
            0.5f64..30.0,
            0.0f64..1.0,
            places,
            any::<bool>(),
            60.0f64..40_000.0,
            0u32..7,
        )
            .prop_map(|(now, deadline, work, done, on, spot, mean, creates)| View {
                now_s: now * HOUR,
                deadline_s: Some(deadline * HOUR),
                work_s: work * HOUR,
                done_s: done * work * HOUR,
                on,
                spot,
                between_losses_s: mean,
                creates_left: creates,
                ..view()
            })
    }

    proptest! {
        /// Whatever the situation: where a loss now could not be made good in
        /// time, no rule is on spot, and where waiting cannot be, none waits.
        #[test]
        fn no_rule_goes_without_the_net(view in views()) {
            for rule in [Rule::Greedy, Rule::UniformProgress, Rule::Ours] {
                let place = decide(rule, &view);
                if view.slack_s() < view.delays.loss_s() {
                    prop_assert!(place != Place::Spot, "{rule:?} {view:?}");
                }
                if view.slack_s() < view.delays.start_s + view.delays.look_s {
                    prop_assert_eq!(place, Place::OnDemand, "{:?} {:?}", rule, view);
                }
                // Whoever was sent somewhere is not sent away at once.
                let there = View { on: place, ..view };
                if place != Place::Nowhere && (place != Place::Spot || view.on != Place::Spot) {
                    let stays = decide(rule, &there);
                    let hops = place == Place::OnDemand && view.spot;
                    prop_assert!(stays == place || hops, "{rule:?} {view:?}: {place:?} and then {stays:?}");
                }
            }
        }
    }
}
