//! What a person asks of a rented machine besides the settings that there are
//! names for: one field of the vendor's search, compared with a value. Only
//! fields that the vendor names are taken: a misspelt filter filters nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Fields of the search of Vast.ai, beside those that are settings of their own
/// (`gpus`, `gpu_count`, `regions`) or are no wish (`rentable`, `rented`, `id`).
/// Sizes of memory are in MB, of disks in GB, speeds of links in Mb/s, times in
/// seconds, as the vendor has them.
pub const FIELDS: [&str; 47] = [
    "bw_nvlink",
    "cluster_id",
    "compute_cap",
    "cpu_arch",
    "cpu_cores",
    "cpu_cores_effective",
    "cpu_ghz",
    "cpu_ram",
    "cuda_max_good",
    "datacenter",
    "direct_port_count",
    "disk_bw",
    "disk_space",
    "dlperf",
    "dlperf_per_dphtotal",
    "dph_total",
    "driver_version",
    "duration",
    "external",
    "flops_per_dphtotal",
    "gpu_arch",
    "gpu_display_active",
    "gpu_frac",
    "gpu_max_power",
    "gpu_max_temp",
    "gpu_mem_bw",
    "gpu_ram",
    "gpu_total_ram",
    "has_avx",
    "host_id",
    "inet_down",
    "inet_down_cost",
    "inet_up",
    "inet_up_cost",
    "machine_id",
    "min_bid",
    "mobo_name",
    "pci_gen",
    "pcie_bw",
    "reliability",
    "static_ip",
    "storage_cost",
    "total_flops",
    "ubuntu_version",
    "verification",
    "verified",
    "vms_enabled",
];
/// Longest value, and values of one list at most.
const VALUE_MAX: usize = 64;
const VALUES_MAX: usize = 32;

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Is,
    /// `!=`
    IsNot,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `in`
    In,
    /// `notin`
    NotIn,
}

const SIGNS: [(&str, Compare); 6] = [
    ("==", Compare::Is),
    ("!=", Compare::IsNot),
    ("<=", Compare::AtMost),
    (">=", Compare::AtLeast),
    ("<", Compare::Less),
    (">", Compare::More),
];

impl Compare {
    /// As the vendor's search writes it.
    #[must_use]
    pub fn op(self) -> &'static str {
        match self {
            Self::Is => "eq",
            Self::IsNot => "neq",
            Self::Less => "lt",
            Self::AtMost => "lte",
            Self::More => "gt",
            Self::AtLeast => "gte",
            Self::In => "in",
            Self::NotIn => "notin",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "notin",
            other => SIGNS.iter().find(|(_, compare)| *compare == other).map_or("==", |(sign, _)| sign),
        }
    }
}

/// One wish, written as `FIELD SIGN VALUE`: `cuda_max_good >= 12.4`,
/// `gpu_arch in [nvidia, amd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter {
    /// One of [`FIELDS`].
    pub field: String,
    /// How it is compared.
    pub compare: Compare,
    /// With what; one, unless it is a list.
    pub values: Vec<String>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        if !FIELDS.contains(&field) {
            return Err(format!("`{}` is no field of the search", clean(field)));
        }
        let rest = rest.trim_start();
        let signed = SIGNS.iter().find_map(|(sign, compare)| Some((*compare, rest.strip_prefix(sign)?)));
        let listed = [("notin ", Compare::NotIn), ("in ", Compare::In)];
        let listed = listed.iter().find_map(|(word, compare)| Some((*compare, rest.strip_prefix(word)?)));
        let Some((compare, value)) = signed.or(listed) else {
            return Err("has no sign: one of == != < <= > >= in notin".into());
        };
        let value = value.trim();
        let values: Vec<String> = match compare {
            Compare::In | Compare::NotIn => {
                let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let inner = inner.ok_or("is compared with a list in brackets: in [a, b]")?;
                inner.split(',').map(|item| item.trim().to_owned()).collect()
            }
            _ => vec![value.to_owned()],
        };
        let odd = |v: &String| {
            v.is_empty() || v.len() > VALUE_MAX || v.chars().any(|c| c.is_control() || "[]<>=".contains(c))
        };
        if values.len() > VALUES_MAX || values.iter().any(odd) {
            return Err(format!("is compared with no value, or one longer than {VALUE_MAX} characters"));
        }
        Ok(Self { field: field.to_owned(), compare, values })
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(VALUE_MAX).collect()
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = self.compare.sign();
        match (self.compare, self.values.as_slice()) {
            (Compare::In | Compare::NotIn, values) => {
                write!(f, "{} {sign} [{}]", self.field, values.join(", "))
            }
            (_, values) => write!(f, "{} {sign} {}", self.field, values.concat()),
        }
    }
}

impl Filter {
    /// Whether what is told of a machine meets it.
    #[must_use]
    pub fn holds(&self, told: &str) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let first = || self.values.first().map(|value| order(told, value));
        let any = || self.values.iter().any(|value| order(told, value) == Equal);
        match self.compare {
            Compare::Is => first() == Some(Equal),
            Compare::IsNot => first() != Some(Equal),
            Compare::Less => first() == Some(Less),
            Compare::AtMost => matches!(first(), Some(Less | Equal)),
            Compare::More => first() == Some(Greater),
            Compare::AtLeast => matches!(first(), Some(Greater | Equal)),
            Compare::In => any(),
            Compare::NotIn => !any(),
        }
    }
}

/// Numbers as numbers, versions (`535.104.05`) part by part, the rest as words.
fn order(a: &str, b: &str) -> std::cmp::Ordering {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a.total_cmp(&b);
    }
    let version =
        |text: &str| text.trim().split('.').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    if let (Some(a), Some(b)) = (version(a), version(b)) {
        return a.cmp(&b);
    }
    let plain = |text: &str| text.trim().replace('_', " ").to_lowercase();
    plain(a).cmp(&plain(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_written_again() {
        for text in [
            "cuda_max_good >= 12.4",
            "gpu_arch in [nvidia, amd]",
            "verified == false",
            "host_id notin [5, 7]",
        ] {
            assert_eq!(read(text).to_string(), text);
            let json = serde_json::to_string(&read(text)).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), read(text), "{json}");
        }
        assert_eq!(read(" inet_down>500 "), read("inet_down > 500"));
    }

    #[test]
    fn a_field_that_the_vendor_does_not_know_and_what_is_no_comparison_are_refused() {
        for text in [
            "",
            "cuda >= 12",
            "rented == false",
            "inet_down",
            "inet_down 500",
            "inet_down >=",
            "host_id in 5",
            "host_id in []",
            "gpu_arch == a\nb",
            "inet_down >= >= 5",
        ] {
            assert!(text.parse::<Filter>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<Filter>("\"nonsense == 1\"").is_err());
    }

    #[test]
    fn numbers_versions_and_words_are_compared_as_what_they_are() {
        for (filter, told, holds) in [
            ("cuda_max_good >= 12.4", "12.8", true),
            ("cuda_max_good >= 12.4", "11.8", false),
            ("driver_version >= 535.104.05", "550.54.14", true),
            ("driver_version >= 535.104.05", "535.54.03", false),
            ("inet_down < 500", "1000", false),
            ("gpu_arch in [nvidia, amd]", "AMD", true),
            ("host_id notin [5, 7]", "7", false),
            ("verified == false", "false", true),
            ("static_ip != true", "true", false),
        ] {
            assert_eq!(read(filter).holds(told), holds, "{filter} of {told}");
        }
    }
}
