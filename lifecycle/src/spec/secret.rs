//! What a secret of a run may be: its name is that of a variable, its value
//! bounded. Decided in one place for whoever reads, keeps or receives one. It
//! never tells a value, not even in what is wrong with it.

use super::CONTRACT;

/// Secrets of one run at most.
pub const MOST: usize = 32;
/// Bytes of one value at most.
pub const LONGEST: usize = 16 << 10;

/// Whether a secret can have this name.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !begins || name.len() > 128 || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(
            "a name holds only A-Z, a-z, 0-9 and _, begins with no digit and has at most 128 of them",
        );
    }
    if CONTRACT.contains(&name) || name == "OUTLAST_HOME" {
        return Err("outlast sets this variable itself");
    }
    // Whoever sets these decides what is run, and they are no secrets.
    if matches!(name, "PATH" | "HOME" | "LD_PRELOAD" | "LD_LIBRARY_PATH") {
        return Err("this variable decides what is run, and is no secret");
    }
    Ok(())
}

/// Whether a secret can have this value.
///
/// # Errors
/// What is wrong with it, in words, and nothing of it.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    if value.len() > LONGEST {
        return Err("it has more than 16 KiB");
    }
    if value.contains('\0') {
        return Err("it holds a NUL byte, which no variable can");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables_that_are_nobody_elses() {
        for good in ["HF_TOKEN", "_x", "a1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "OUTLAST_RUN_ID", "OUTLAST_HOME", "PATH", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_value_tells_nothing_of_it() {
        assert_eq!(check_value("hf_x\n"), Ok(()));
        for bad in ["", "canary\0", &"canary".repeat(3_000)] {
            assert!(!check_value(bad).unwrap_err().contains("canary"));
        }
    }
}
