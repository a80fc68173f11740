//! What may be spent, decided without IO. Nothing that somebody bills is begun
//! without a cap that a person wrote: silence is no consent.

use lifecycle::RunSpec;

/// Whether a run may be begun with a provider.
///
/// # Errors
/// What is missing, and how it is given.
pub fn is_capped(spec: &RunSpec, paid: bool) -> Result<(), String> {
    if !paid {
        return Ok(());
    }
    let mut missing = Vec::new();
    if spec.max_usd.is_none() {
        missing.push("max_usd = 10.00 (for the whole run)");
    }
    if spec.max_usd_per_hour.is_none() {
        missing.push("max_usd_per_hour = 0.60 (for its machine)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "machines of `{}` cost money, and this run has no cap: write to [budget] in outlast.toml, for example: {}; \
         or give it with --set budget.max_usd=... and --set budget.max_usd_per_hour=...",
        spec.provider,
        missing.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_billed_needs_both_caps_and_says_which_are_missing() {
        let spec = |run: Option<f64>, hour: Option<f64>| -> RunSpec {
            serde_json::from_value(serde_json::json!({
                "project": "p", "name": "n", "command": ["x"], "provider": "vast", "max_usd": run,
                "max_usd_per_hour": hour
            }))
            .unwrap()
        };
        assert_eq!(is_capped(&spec(None, None), false), Ok(()));
        assert_eq!(is_capped(&spec(Some(1.0), Some(0.5)), true), Ok(()));
        let none = is_capped(&spec(None, None), true).unwrap_err();
        assert!(none.contains("max_usd = ") && none.contains("max_usd_per_hour = "), "{none}");
        let one = is_capped(&spec(Some(1.0), None), true).unwrap_err();
        assert!(!one.contains("max_usd = ") && one.contains("max_usd_per_hour = "), "{one}");
    }
}
