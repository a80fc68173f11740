//! What the name of a measurement of the machine says: whether it can run out, and
//! where that is. A value says nothing of it: 95 may be percent or gigabytes.

use super::name::words;

/// What fills up.
const STORES: [&str; 8] = ["mem", "memory", "vram", "rss", "disk", "ram", "swap", "storage"];
/// What is measured of stores and does not fill them.
const FLOWS: [&str; 14] = [
    "in",
    "out",
    "read",
    "reads",
    "written",
    "write",
    "writes",
    "io",
    "iops",
    "threads",
    "clock",
    "bandwidth",
    "speed",
    "util",
];
const LEFT: [&str; 4] = ["available", "free", "left", "remaining"];
const PERCENT: [&str; 3] = ["percent", "percentage", "pct"];
const TOTAL: [&str; 4] = ["total", "capacity", "limit", "max"];
const USED: [&str; 5] = ["used", "usage", "allocated", "reserved", "rss"];

/// How a measurement fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::judge) enum Fill {
    /// To 100.
    Percentage,
    /// It is what is left, and ends at 0.
    Left,
    /// To a total that the name does not tell.
    Amount,
}

/// `None` where a name is not of something that fills up.
pub(in crate::judge) fn fill(name: &str) -> Option<Fill> {
    let words = words(name);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if !has(&STORES) || has(&FLOWS) || has(&TOTAL) {
        return None;
    }
    // The GPU memory of W&B's documented system metrics, in percent.
    let of_wandb = name.starts_with("gpu.") && name.ends_with(".memoryAllocated");
    Some(match () {
        () if has(&LEFT) => Fill::Left,
        () if has(&PERCENT) || name.contains('%') || of_wandb => Fill::Percentage,
        () => Fill::Amount,
    })
}

/// Whether a measurement is of something that fills up, or of its total.
pub(in crate::judge) fn is_filled(name: &str) -> bool {
    fill(name).is_some() || words(name).iter().any(|word| TOTAL.contains(&word.as_str()))
}

/// Whether `other` is the total of what `name` is an amount of: the same words in
/// the same unit, but for those that say used and total.
pub(in crate::judge) fn total_of(name: &str, other: &str) -> bool {
    let (mine, theirs) = (words(name), words(other));
    let of = |words: &[String], but: &[&str]| -> Vec<String> {
        words.iter().filter(|word| !but.contains(&word.as_str())).cloned().collect()
    };
    let rest = of(&theirs, &TOTAL);
    rest.len() < theirs.len() && rest == of(&mine, &USED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_fills_up_and_to_what() {
        for (name, wanted) in [
            ("disk./.usagePercent", Some(Fill::Percentage)),
            ("memory_percent", Some(Fill::Percentage)),
            ("proc.memory.rssMB", Some(Fill::Amount)),
            ("disk./.usageGB", Some(Fill::Amount)),
            ("proc.memory.availableMB", Some(Fill::Left)),
            ("system/disk_available_megabytes", Some(Fill::Left)),
            ("gpu.0.memoryAllocated", Some(Fill::Percentage)),
            ("gpu.0.memoryAllocatedBytes", Some(Fill::Amount)),
            ("disk.vda.in", None),
            ("gpu.0.gpu", None),
            ("gpu.0.temp", None),
            ("proc.cpu.threads", None),
            ("memory/total_gb", None),
        ] {
            assert_eq!(fill(name), wanted, "{name}");
        }
        assert!(total_of("memory/used_gb", "memory/total_gb"));
        assert!(!total_of("memory/used_mb", "memory/total_gb"), "in another unit");
        assert!(!total_of("memory/used_gb", "disk/total_gb"));
        assert!(!total_of("memory/used_gb", "memory/used_gb"));
    }
}
