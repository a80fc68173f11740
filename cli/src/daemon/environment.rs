//! `controller.env` in the data directory: variables that the controller is
//! started with, whoever starts it. Written for its owner alone, in the form that
//! systemd's `EnvironmentFile` reads too. No value is ever shown.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::exit_code::{ExitCode, Failure};

/// The file's name.
pub const ENVIRONMENT: &str = "controller.env";
/// No such file is longer.
const LONGEST: u64 = 1 << 20;

fn is_name(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The file for these variables.
///
/// # Errors
/// Where a name is none, or a value has more than one line.
pub fn environment_text(env: &BTreeMap<String, String>) -> Result<String, Failure> {
    let mut text = String::new();
    for (name, value) in env {
        if !is_name(name) {
            let why = format!("`{}` is no name of a variable", crate::printer::safe(name));
            return Err(Failure::new(ExitCode::Usage, why));
        }
        if value.chars().any(char::is_control) {
            let why = format!("the value of {name} cannot be handed on: it has more than one line");
            return Err(Failure::new(ExitCode::BadInput, why));
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            // What a shell would look at within double quotes.
            if matches!(c, '"' | '\\' | '$' | '`') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
    }
    Ok(text)
}

/// What such a file says; lines of another form are left out.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for line in text.lines() {
        let Some((name, quoted)) = line.split_once('=') else { continue };
        let Some(inner) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { continue };
        if !is_name(name) {
            continue;
        }
        let (mut value, mut escaped) = (String::new(), false);
        for c in inner.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                escaped = false;
                value.push(c);
            }
        }
        env.insert(name.to_owned(), value);
    }
    env
}

/// The variables of a data directory; none where there is no file.
///
/// # Errors
/// Where the file cannot be read.
pub fn environment(home: &Path) -> io::Result<BTreeMap<String, String>> {
    let path = home.join(ENVIRONMENT);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
        Ok(meta) if meta.len() > LONGEST => return Err(io::ErrorKind::InvalidData.into()),
        Ok(_) => {}
    }
    Ok(parse(&std::fs::read_to_string(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(env in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,8}", "[^\\p{Cc}]{0,40}", 0..5)) {
            prop_assert_eq!(parse(&environment_text(&env).unwrap()), env);
        }
    }

    #[test]
    fn one_line_each_and_nothing_else() {
        let text = |name: &str, value: &str| environment_text(&BTreeMap::from([(name.into(), value.into())]));
        assert_eq!(text("A", "x\"$\\").unwrap(), "A=\"x\\\"\\$\\\\\"\n");
        assert_eq!(text("A", "x\ny").unwrap_err().code, ExitCode::BadInput);
        for bad in ["", "1A", "A B", "A=B", "A\n"] {
            assert_eq!(text(bad, "x").unwrap_err().code, ExitCode::Usage);
        }
        assert!(parse("A=x\n#B=\"y\"\nexport C=\"z\"\n").is_empty());
    }
}
