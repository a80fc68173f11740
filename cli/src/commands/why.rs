//! `outlast why`: why an attempt ended, from its failure capsule. All that is
//! shown comes from programs and machines and is escaped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use controller::capsule::{Capsule, told};
use proto::v1;

use super::analyze::tokens::bound_of_any;
use super::answer;
use crate::app::Context;
use crate::args::WhyArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::safe_lines;

/// What the short form may cost, in tokens of `o200k_base`.
const TOKENS: usize = 400;

/// Does it.
///
/// # Errors
/// Where there is no such run or attempt, the controller cannot be asked, or
/// the file cannot be written.
pub async fn perform(ctx: &Context, args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let run = client.run(&args.run).await?.run.unwrap_or_default();
    if run.question.is_some() && !args.json {
        super::answer::screen(ctx, &run);
        if run.attempts == 0 {
            return Ok(ExitCode::Ok);
        }
        ctx.printer.line("");
    }
    let ask = v1::WhyRequest { run: args.run.clone(), attempt: args.attempt.unwrap_or(0) };
    let json = answer(client.operator.clone().why(ask).await)?.capsule_json;
    let capsule: Capsule = serde_json::from_str(&json).map_err(|error| {
        Failure::new(ExitCode::Internal, format!("the controller's answer cannot be read: {error}"))
            .help("the controller may be of another version: outlast controller status")
    })?;
    if let Some(file) = &args.export {
        export(file, &json, args.yes)?;
        ctx.printer.note(&format!("the failure capsule is in {}", file.display()));
    }
    if args.json {
        // As it was sent: a newer controller may know more than this program.
        let whole: serde_json::Value = serde_json::from_str(&json)?;
        ctx.printer.json(&whole);
    } else if args.full {
        print(ctx, &told::whole(&capsule));
    } else {
        print(ctx, &in_short(&capsule));
    }
    Ok(ExitCode::Ok)
}

/// The short form, whose tokens are counted as an assistant pays for them.
pub(crate) fn in_short(capsule: &Capsule) -> String {
    told::short_within(capsule, TOKENS, &bound_of_any)
}

fn print(ctx: &Context, text: &str) {
    for line in safe_lines(text.trim_end()).lines() {
        ctx.printer.line(line);
    }
}

/// Writes it beside its place first, so that there is a whole file or none;
/// for its owner's eyes only.
pub(super) fn export(file: &Path, text: &str, replace: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(ExitCode::CannotWrite, format!("cannot write {}: {error}", file.display()))
    };
    if !replace && fs::symlink_metadata(file).is_ok() {
        return Err(Failure::new(ExitCode::CannotWrite, format!("{} exists already", file.display()))
            .help("replace it with --yes, or choose another name"));
    }
    let name = file.file_name().ok_or_else(|| failed(io::Error::other("it names no file")))?;
    let temporary: PathBuf =
        file.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let write = || -> io::Result<()> {
        let mut open = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        open.write_all(text.as_bytes())?;
        open.write_all(b"\n")?;
        open.sync_all()?;
        if replace {
            fs::rename(&temporary, file)?;
        } else {
            // Unlike a rename this never replaces what appeared meanwhile; not
            // every file system can do it.
            match fs::hard_link(&temporary, file) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&temporary, file)?,
                linked => linked?,
            }
        }
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A capsule whose program spoke so.
    fn spoke(name: &str, text: &str) -> Capsule {
        let six = [text; 6].join("\n");
        serde_json::from_value(serde_json::json!({
            "schema": 1, "made_ms": 1, "is_final": true,
            "verdict": {
                "cause": "user-error", "confidence": "likely",
                "because": [format!("last error: {text}"), "exit code 1", text, text],
                "next": ["correct it, then: outlast run", text, "outlast logs digits --stderr --attempt 1"],
            },
            "run": {"name": name},
            "attempt": {"number": 1, "ending": "exit code 1", "last_step": 1200, "durable_step": 1100, "started_ms": 1},
            "output": {"stderr": {"text": six}},
        }))
        .unwrap()
    }

    #[test]
    fn the_short_form_costs_four_hundred_tokens_whatever_a_program_writes() {
        let counted = |text: &str| tiktoken_rs::o200k_base_singleton().encode_with_special_tokens(text).len();
        let numbers =
            "loss=[3.333e-01, 2.500e-01, 1.4285e-01, 9.1e-02, 7.77e-02, 6.25e-02] step=[11, 22, 33, 44, 55]";
        let hex = "0x7f3a9c 5d41402abc4b2a76b9719d911017c592 0xdeadbeef 0x00000000000000ff c3ab8ff13720e8ad9047dd39466b3c89";
        for text in [
            numbers,
            hex,
            &"\u{9f98}\u{9750}\u{9f7e}\u{7228}".repeat(40),
            &"\u{1f9a0}\u{1f6f8}a".repeat(50),
            "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQgdGV4dCB3aXRoIG5vIHNwYWNlcyBhdCBhbGwgaW4gaXQgYW5k",
            &"{}[]();:!?%$#@~^&*".repeat(9),
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x512 and 256x10)",
        ] {
            for name in ["digits-abc", text] {
                let short = in_short(&spoke(name, text));
                assert!(counted(&short) <= TOKENS, "{} tokens: {short}", counted(&short));
                assert!(short.lines().count() >= 2 && short.contains("attempt") | (name == text), "{short}");
            }
        }
        let usual =
            in_short(&spoke("digits-abc", "RuntimeError: shapes cannot be multiplied (64x512 and 256x10)"));
        for part in ["last lines:", "stood: step 1200, durable 1100", "try: correct it"] {
            assert!(usual.contains(part), "{part} is left out of what is short:\n{usual}");
        }
    }

    #[test]
    fn an_export_is_whole_private_and_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.json");
        export(&file, "{1}", false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{1}\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = export(&file, "{2}", false).unwrap_err();
        assert_eq!(refused.code, ExitCode::CannotWrite);
        assert_eq!(fs::read_to_string(&file).unwrap(), "{1}\n");
        export(&file, "{3}", true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{3}\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(export(&dir.path().join("no/such"), "{}", false).is_err());
        assert!(export(Path::new("/"), "{}", true).is_err());
    }
}
