//! Words of the command line that are settings, durations and moments. They are
//! checked for their form only.

use std::time::Duration;

/// Splits `SECTION.KEY=VALUE`.
///
/// # Errors
/// Where it is none.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is written SECTION.KEY=VALUE")?;
    if !name.contains('.') {
        return Err(format!("`{name}` names no section: it is written SECTION.KEY=VALUE"));
    }
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Splits `RUN@STEP`.
///
/// # Errors
/// Where it is none.
pub(super) fn at_step(text: &str) -> Result<(String, u64), String> {
    let (run, step) = text.rsplit_once('@').ok_or("it is written RUN@STEP, such as digits-4f2c@1200")?;
    let step = step.parse().map_err(|_| format!("`{step}` is no step: it is written RUN@STEP"))?;
    Ok((run.to_owned(), step))
}

/// Reads `300ms`, `30s`, `5m`, `2h` or a plain number of seconds.
///
/// # Errors
/// Where it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("a duration is a number with ms, s, m or h, such as 30s".into()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "a duration is written like 30s")? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| "that is too long".into())
}

/// Reads how long ago (`90s`, `10m`, `2h`, `3d`), a moment of RFC 3339, or unix
/// seconds, as unix milliseconds.
pub(super) fn since(text: &str) -> Result<u64, String> {
    let ago = match text.strip_suffix('d') {
        Some(days) => duration(&format!("{days}h")).and_then(|d| d.checked_mul(24).ok_or(String::new())),
        None if text.bytes().all(|b| b.is_ascii_digit()) => Err(String::new()),
        None => duration(text),
    };
    if let Ok(ago) = ago {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(crate::commands::now_ms().saturating_sub(ago).max(1));
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
        && (0.0..1e13).contains(&seconds)
    {
        // Whoever gives thirteen digits means milliseconds.
        let factor = if seconds >= 1e11 { 1.0 } else { 1_000.0 };
        return Duration::try_from_secs_f64(seconds * factor / 1_000.0)
            .map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(1))
            .map_err(|error| error.to_string());
    }
    crate::commands::unix_ms_of(text)
        .ok_or_else(|| "a moment is written 10m (ago), 2026-01-31T23:59:59Z or as unix seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let at = 1_769_903_999_000;
        for text in ["2026-01-31T23:59:59Z", "2026-01-31T23:59:59.000+00:00", "2026-02-01 01:29:59+01:30"] {
            assert_eq!(since(text), Ok(at), "{text}");
        }
        assert_eq!((since("1769903999"), since("1769903999000")), (Ok(at), Ok(at)));
        assert_eq!(since("2026-01-31T23:59:59.25Z"), Ok(at + 250));
        for (text, ago) in [("90s", 90_000), ("10m", 600_000), ("3d", 259_200_000)] {
            let now = crate::commands::now_ms();
            assert!((now - ago..now - ago + 60_000).contains(&since(text).unwrap()), "{text}");
        }
        for bad in [
            "",
            "d",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-01-31",
            "-5",
            "2026-02-30T00:00:00Z",
            "1e400",
        ] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_checkpoint_is_named_by_run_and_step() {
        assert_eq!(at_step("digits-4f2c@1200"), Ok(("digits-4f2c".to_owned(), 1200)));
        assert!(at_step("digits").is_err() && at_step("digits@last").is_err());
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in
            [("300ms", 300), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000), ("7", 7_000)]
        {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for bad in ["", "s", "3d", "-3s", "1e400s", "..s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
