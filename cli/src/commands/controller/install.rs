//! Has the system keep a controller running: a user unit of systemd, or a
//! launch agent of macOS. Needs no rights but the user's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::app::Context;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};

const UNIT: &str = "outlast-controller.service";
const AGENT: &str = "dev.outlast.controller.plist";
const UNIT_TEXT: &str = include_str!("../../../../packaging/outlast-controller.service");
const AGENT_TEXT: &str = include_str!("../../../../packaging/dev.outlast.controller.plist");

/// A user's systemd that lingers from now on answers within this.
const MANAGER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// Who keeps it running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Systemd,
    Launchd,
}

/// # Errors
/// Where the system has neither, or refuses.
pub(super) async fn perform(ctx: &Context, print: bool) -> anyhow::Result<ExitCode> {
    let (exe, home) = (daemon::own_exe()?, ctx.home()?);
    let keeper = if cfg!(target_os = "macos") { Keeper::Launchd } else { Keeper::Systemd };
    let text = render(keeper, &exe, &home)?;
    if print {
        ctx.printer.raw(text.as_bytes());
        return Ok(ExitCode::Ok);
    }
    let place = place(ctx, keeper)?;
    if keeper == Keeper::Systemd && !succeeds("systemctl", &["--user", "show-environment"]) {
        let why = "systemd does not serve this user here";
        let help = "print the unit with --print, or start the controller by hand: outlast controller start";
        return Err(Failure::new(ExitCode::BadInput, why).help(help).into());
    }
    let shown = place.display().to_string();
    if let Some(above) = place.parent() {
        std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
    }
    controller::home::write_file(&place, text.as_bytes(), 0o644).context("install")?;
    // The one that runs now is not the system's: it makes way.
    if let Ok((client, _)) = daemon::answering(&home).await {
        daemon::end(&home, &client).await?;
    }
    match keeper {
        Keeper::Systemd => enable_systemd(ctx)?,
        Keeper::Launchd => {
            let _ = succeeds("launchctl", &["unload", &shown]);
            need("launchctl", &["load", "-w", &shown])?;
        }
    }
    let view = daemon::ensure(ctx, false).await?.view().await?;
    ctx.printer.note(&format!("{shown} is installed; the controller runs (pid {})", view.pid));
    Ok(ExitCode::Ok)
}

fn enable_systemd(ctx: &Context) -> anyhow::Result<()> {
    need("systemctl", &["--user", "daemon-reload"])?;
    need("systemctl", &["--user", "enable", UNIT])?;
    need("systemctl", &["--user", "restart", UNIT])?;
    // Without it the system ends the controller when its user logs out.
    if !succeeds("loginctl", &["enable-linger"]) {
        ctx.printer.warn("the controller will end when you log out: `loginctl enable-linger` was refused");
    }
    Ok(())
}

/// Has systemd keep the controller of `home` running, also when nobody is logged
/// in; `false`: it cannot here, and nothing was left behind.
///
/// # Errors
/// Where the unit cannot be written.
pub(super) fn kept_by_systemd(ctx: &Context, home: &Path) -> anyhow::Result<bool> {
    if cfg!(target_os = "macos") {
        return Ok(false);
    }
    // Without it the system ends the controller when its user logs out.
    if !succeeds("loginctl", &["enable-linger"]) {
        return Ok(false);
    }
    let user = Systemd::of(home);
    let deadline = Instant::now() + MANAGER;
    // Lingering has just begun, perhaps, and the user's systemd with it.
    while !user.succeeds(&["show-environment"]) {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    let place = place(ctx, Keeper::Systemd)?;
    // There is one unit for a user: that of another installation is left to it.
    if std::fs::read_to_string(&place).is_ok_and(|text| !is_of(&text, home)) {
        return Ok(false);
    }
    let text = render(Keeper::Systemd, &daemon::own_exe()?, home)?;
    if let Some(above) = place.parent() {
        std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
    }
    controller::home::write_file(&place, text.as_bytes(), 0o644).context("install")?;
    let steps: [&[&str]; 3] = [&["daemon-reload"], &["enable", UNIT], &["restart", UNIT]];
    if steps.iter().all(|step| user.succeeds(step)) {
        return Ok(true);
    }
    let_go(ctx, home);
    Ok(false)
}

/// Whether a unit is that of this data directory.
fn is_of(unit: &str, home: &Path) -> bool {
    let wanted = home.to_str().map(systemd_quoted).unwrap_or_default();
    unit.contains(&format!("--home {wanted}\n"))
}

/// Whether systemd keeps the controller of this data directory.
pub(super) fn is_kept(ctx: &Context, home: &Path) -> bool {
    let unit = place(ctx, Keeper::Systemd).ok().and_then(|place| std::fs::read_to_string(place).ok());
    unit.is_some_and(|text| is_of(&text, home)) && Systemd::of(home).succeeds(&["is-active", "--quiet", UNIT])
}

/// Has nobody keep a controller of `home` running any more, and ends the one
/// that systemd keeps. As far as it goes: whoever asks makes sure by the lock.
pub(super) fn let_go(ctx: &Context, home: &Path) {
    if cfg!(target_os = "macos") {
        let Ok(place) = place(ctx, Keeper::Launchd) else { return };
        let wanted = home.to_str().map(xml_quoted).unwrap_or_default();
        if std::fs::read_to_string(&place).is_ok_and(|text| text.contains(&format!("<string>{wanted}<"))) {
            let _ = succeeds("launchctl", &["unload", "-w", &place.display().to_string()]);
            let _ = std::fs::remove_file(place);
        }
        return;
    }
    let Ok(place) = place(ctx, Keeper::Systemd) else { return };
    let ours = std::fs::read_to_string(&place).is_ok_and(|text| is_of(&text, home));
    if ours {
        let user = Systemd::of(home);
        let _ = user.succeeds(&["disable", "--now", UNIT]);
        let _ = std::fs::remove_file(place);
        let _ = user.succeeds(&["daemon-reload"]);
    }
}

/// The systemd of a user. A login over SSH may not say where it is.
struct Systemd(Option<PathBuf>);

impl Systemd {
    /// That of the owner of a directory.
    fn of(home: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let told = std::env::var_os("XDG_RUNTIME_DIR").is_some();
        let usual =
            std::fs::metadata(home).ok().map(|meta| PathBuf::from(format!("/run/user/{}", meta.uid())));
        Self(usual.filter(|dir| !told && dir.is_dir()))
    }

    fn succeeds(&self, args: &[&str]) -> bool {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(dir) = &self.0 {
            command.env("XDG_RUNTIME_DIR", dir);
        }
        command.status().is_ok_and(|status| status.success())
    }
}

fn place(ctx: &Context, keeper: Keeper) -> anyhow::Result<PathBuf> {
    let set = |name: &str| ctx.env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let no_home = || Failure::new(ExitCode::BadInput, "HOME is not set: no place for the unit is known");
    let user = set("HOME");
    Ok(match keeper {
        Keeper::Systemd => {
            let config = set("XDG_CONFIG_HOME").or_else(|| Some(user?.join(".config")));
            config.ok_or_else(no_home)?.join("systemd/user").join(UNIT)
        }
        Keeper::Launchd => user.ok_or_else(no_home)?.join("Library/LaunchAgents").join(AGENT),
    })
}

fn render(keeper: Keeper, exe: &Path, home: &Path) -> anyhow::Result<String> {
    let quoted = |path: &Path| -> Result<String, Failure> {
        let text = path.to_str().filter(|text| !text.contains(char::is_control));
        let text = text.ok_or_else(|| {
            Failure::new(ExitCode::BadInput, format!("{} cannot be written to a unit", path.display()))
        })?;
        Ok(match keeper {
            Keeper::Systemd => systemd_quoted(text),
            Keeper::Launchd => xml_quoted(text),
        })
    };
    let template = match keeper {
        Keeper::Systemd => UNIT_TEXT,
        Keeper::Launchd => AGENT_TEXT,
    };
    // No quotes are taken off there, and specifiers are looked for all the same.
    let bare = home.to_str().unwrap_or_default().replace('%', "%%");
    let text = template.replace("@EXE@", &quoted(exe)?).replace("@HOME@", &quoted(home)?);
    Ok(text.replace("@ENVIRONMENT@", &format!("{bare}/{}", daemon::ENVIRONMENT)))
}

fn systemd_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Specifiers and variables.
            '%' | '$' => out.extend([c, c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn xml_quoted(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn need(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = ran.with_context(|| format!("start {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(ExitCode::Internal, format!("{program} {} failed: {said}", args.join(" "))).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_name_the_program_and_the_data_whatever_their_names() {
        let (exe, home) = (Path::new("/opt/a b/out\"last"), Path::new("/h/50%/$x"));
        let unit = render(Keeper::Systemd, exe, home).unwrap();
        assert!(
            unit.contains("ExecStart=\"/opt/a b/out\\\"last\" controller serve --home \"/h/50%%/$$x\"\n"),
            "{unit}"
        );
        assert!(unit.contains("EnvironmentFile=-/h/50%%/$x/controller.env\n"), "{unit}");
        let agent = render(Keeper::Launchd, Path::new("/a&b"), home).unwrap();
        assert!(agent.contains("<string>/a&amp;b</string>"), "{agent}");
        for text in [unit, agent] {
            assert!(!text.contains('@'), "{text}");
        }
        assert!(render(Keeper::Systemd, Path::new("/a\nExecStartPre=/bin/x"), home).is_err());
    }
}
