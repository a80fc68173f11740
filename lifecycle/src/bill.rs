//! A provider's charges against the product's own ledger. The ledger is an
//! upper bound by its making ([`crate::meter`]), so a charge above it, or for a
//! machine that nobody here knows, is money that nobody can explain. Pure; it
//! pays nothing and ends nothing.

use std::collections::BTreeMap;

/// What rounding, the edges of seconds and bytes that flowed before the first
/// and after the last report may make of a sum: a part of it, and dollars.
const SLACK: f64 = 1.01;
const SLACK_USD: f64 = 0.05;

/// Whose machine a charge is for, as its label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This installation's.
    Ours,
    /// Another installation's.
    Foreign,
    /// Not labelled by Outlast at all.
    Other,
}

/// What was charged for one machine; several rows of one are summed.
#[derive(Debug, Clone, PartialEq)]
pub struct Charged<'a> {
    /// The provider's name for it.
    pub instance: &'a str,
    /// By its label.
    pub whose: Whose,
    /// US dollars.
    pub usd: f64,
}

/// What the ledger says of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// The provider's name for it.
    pub instance: &'a str,
    /// US dollars of the time that was asked for, as an upper bound: nothing for
    /// one that had ended before.
    pub usd: f64,
}

/// Money that cannot be explained.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The provider's name for the machine.
    pub instance: String,
    /// Whether the ledger has it.
    pub known: bool,
    /// US dollars charged, and in the ledger.
    pub billed_usd: f64,
    /// See [`Finding::billed_usd`].
    pub ledger_usd: f64,
}

impl Finding {
    /// What of it is not explained, in US dollars.
    #[must_use]
    pub fn unexplained_usd(&self) -> f64 {
        (self.billed_usd - self.ledger_usd).max(0.0)
    }
}

/// The comparison, in US dollars.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reckoning {
    /// Charged for machines of this installation, and the ledger of those that
    /// were charged or not.
    pub billed_usd: f64,
    /// See [`Reckoning::billed_usd`].
    pub ledger_usd: f64,
    /// Charged for other installations' machines.
    pub foreign_usd: f64,
    /// Charged for what is not Outlast's.
    pub other_usd: f64,
    /// The dearest first.
    pub findings: Vec<Finding>,
}

impl Reckoning {
    /// What nobody can explain.
    #[must_use]
    pub fn unexplained_usd(&self) -> f64 {
        self.findings.iter().map(Finding::unexplained_usd).sum()
    }
}

/// Compares.
#[must_use]
pub fn reckon(charged: &[Charged<'_>], ledger: &[Entry<'_>]) -> Reckoning {
    let mut sums: BTreeMap<&str, (Whose, f64)> = BTreeMap::new();
    for charge in charged.iter().filter(|charge| charge.usd.is_finite()) {
        let sum = sums.entry(charge.instance).or_insert((charge.whose, 0.0));
        sum.1 += charge.usd;
        // One row that names this installation is enough.
        if charge.whose == Whose::Ours {
            sum.0 = Whose::Ours;
        }
    }
    let known: BTreeMap<&str, &Entry<'_>> = ledger.iter().map(|entry| (entry.instance, entry)).collect();
    let mut reckoning =
        Reckoning { ledger_usd: ledger.iter().map(|entry| entry.usd).sum(), ..Reckoning::default() };
    for (instance, (whose, billed_usd)) in sums {
        let finding =
            |known, ledger_usd| Finding { instance: instance.to_owned(), known, billed_usd, ledger_usd };
        match (known.get(instance), whose) {
            (Some(entry), _) => {
                reckoning.billed_usd += billed_usd;
                if billed_usd > entry.usd * SLACK + SLACK_USD {
                    reckoning.findings.push(finding(true, entry.usd));
                }
            }
            (None, Whose::Ours) if billed_usd > 0.0 => {
                reckoning.billed_usd += billed_usd;
                reckoning.findings.push(finding(false, 0.0));
            }
            (None, Whose::Ours) => {}
            (None, Whose::Foreign) => reckoning.foreign_usd += billed_usd,
            (None, Whose::Other) => reckoning.other_usd += billed_usd,
        }
    }
    reckoning.findings.sort_by(|a, b| b.unexplained_usd().total_cmp(&a.unexplained_usd()));
    reckoning
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn charged(instance: &str, whose: Whose, usd: f64) -> Charged<'_> {
        Charged { instance, whose, usd }
    }

    fn entry(instance: &str, usd: f64) -> Entry<'_> {
        Entry { instance, usd }
    }

    #[test]
    fn what_the_ledger_bears_is_no_finding_and_everything_else_of_ours_is() {
        let charges = [
            charged("1", Whose::Ours, 0.6),
            charged("1", Whose::Ours, 0.4),
            charged("2", Whose::Ours, 3.0),
            charged("3", Whose::Ours, 0.5),
            charged("4", Whose::Foreign, 7.0),
            charged("5", Whose::Other, 11.0),
            // No label is told with it, and the ledger knows its number.
            charged("6", Whose::Other, 2.0),
            // It ended before the time that was asked for, and bills on.
            charged("7", Whose::Ours, 99.0),
            charged("8", Whose::Ours, f64::NAN),
        ];
        let ledger = [entry("1", 1.0), entry("2", 2.0), entry("6", 1.5), entry("7", 0.0), entry("9", 4.0)];
        let found = reckon(&charges, &ledger);
        let names: Vec<_> = found.findings.iter().map(|f| (f.instance.as_str(), f.known)).collect();
        assert_eq!(names, [("7", true), ("2", true), ("3", false), ("6", true)]);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(found.unexplained_usd(), 99.0 + 1.0 + 0.5 + 0.5), "{found:?}");
        assert!(close(found.billed_usd, 105.5) && close(found.ledger_usd, 8.5), "{found:?}");
        assert!(close(found.foreign_usd, 7.0) && close(found.other_usd, 11.0), "{found:?}");
    }

    proptest! {
        /// Every dollar that was charged is in exactly one place.
        #[test]
        fn n23_no_dollar_is_lost(
            rows in proptest::collection::vec((0u8..8, 0u8..3, 0u32..1_000), 0..40),
            ledger in proptest::collection::btree_map(0u8..8, 0u32..1_000, 0..8),
        ) {
            let names: Vec<String> = (0..8).map(|n| n.to_string()).collect();
            let whose = |n: u8| [Whose::Ours, Whose::Foreign, Whose::Other][usize::from(n)];
            let charges: Vec<_> = rows.iter()
                .map(|(n, w, usd)| charged(&names[usize::from(*n)], whose(*w), f64::from(*usd))).collect();
            let entries: Vec<_> = ledger.iter()
                .map(|(n, usd)| entry(&names[usize::from(*n)], f64::from(*usd))).collect();
            let found = reckon(&charges, &entries);
            let all: f64 = charges.iter().map(|c| c.usd).sum();
            let told = found.billed_usd + found.foreign_usd + found.other_usd;
            prop_assert!((all - told).abs() < 1e-6, "{all} {told} {found:?}");
            prop_assert!(found.unexplained_usd() <= found.billed_usd + 1e-9);
        }
    }
}
