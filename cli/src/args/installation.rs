//! What the verbs about the controller and the configuration take.

use std::path::PathBuf;

use clap::Subcommand;

use super::values::setting;

/// `outlast controller`
#[derive(Debug, Subcommand)]
pub enum ControllerVerb {
    /// Start one in the background, if none runs
    Start {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End it; machines and their work go on
    Stop,
    /// Say whether one runs, and how it is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the system keep one running
    Install {
        /// Only print what would be installed
        #[arg(long)]
        print: bool,
    },
    /// Be one, in the foreground
    Serve {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        home: Option<PathBuf>,
    },
    /// Sign a device's certificate request from standard input (`outlast login` runs it)
    Admit {
        /// What the device is called
        #[arg(long, value_name = "DEVICE")]
        name: String,
    },
    /// Move this computer's controller to one that is always on, and log in to it there
    ///
    /// Says first what it will do, and asks. Cut off anywhere, run it again: it goes on, or says
    /// what is where. Never do two controllers of one installation run.
    Deploy(DeployArgs),
    /// Do one step of a move on the other computer (`outlast controller deploy` has SSH run it)
    #[command(hide = true)]
    Arrive {
        /// Which.
        #[command(subcommand)]
        step: ArriveVerb,
    },
    /// Be a connection to the controller (`outlast login` has SSH run it)
    #[command(hide = true)]
    Link,
}

/// `outlast controller deploy`
#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    /// Where it goes, as for `ssh`
    #[arg(value_name = "[USER@]HOST")]
    pub to: String,
    /// A program of this version for that computer, by default this very program
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Hand this variable on to the controller there; may be repeated
    #[arg(long = "env", value_name = "NAME")]
    pub env: Vec<String>,
    /// The data directory there, if it is not to be the usual one
    #[arg(long, value_name = "DIR")]
    pub remote_home: Option<String>,
    /// Start it as a process there, not as a service of systemd
    #[arg(long)]
    pub no_service: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub yes: bool,
}

/// What the other computer is asked to do.
#[derive(Debug, Subcommand)]
pub enum ArriveVerb {
    /// Say what is there
    Look,
    /// Take the state from standard input
    Receive,
    /// Let a controller run for it
    Start {
        /// The installation
        #[arg(long)]
        hub: String,
        /// Names the move
        #[arg(long)]
        token: String,
        /// As a process, not as a service
        #[arg(long)]
        process: bool,
    },
    /// See to it that it cannot be started
    Undo {
        /// The installation
        #[arg(long)]
        hub: String,
        /// Names the move
        #[arg(long)]
        token: String,
    },
}

/// `outlast login`
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// Where the controller is, as for `ssh`
    #[arg(value_name = "[USER@]HOST")]
    pub to: String,
    /// Its data directory there, if it is not the usual one
    #[arg(long, value_name = "DIR")]
    pub remote_home: Option<String>,
    /// The program there, if it is not on the path
    #[arg(long, value_name = "PATH")]
    pub remote_program: Option<String>,
    /// What this device is called there; by default its host name
    #[arg(long, value_name = "DEVICE")]
    pub name: Option<String>,
}

/// `outlast keys`
#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Say to whom checkpoints are sealed, and whether that is enough
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the recovery key to a file, and remove it here
    ///
    /// It opens every sealed checkpoint when the controller's own key is lost. Keep the file
    /// elsewhere: `outlast artifacts export --key FILE` reads it.
    Recovery {
        /// A file that does not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Seal to one more key from now on
    AddRecipient {
        /// As `outlast keys show` prints them
        #[arg(value_name = "PUBLIC-KEY")]
        key: String,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Use this file instead of the outlast.toml that is found
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a setting, for example budget.max_usd=5; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
}

/// `outlast config`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every setting as it is in force
    Show {
        /// Say who set each
        #[arg(long)]
        origin: bool,
        /// The directory of the source tree
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether the configuration is right
    Check {
        /// The directory of the source tree
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// `outlast notify`
#[derive(Debug, Subcommand)]
pub enum NotifyVerb {
    /// Show whom the controller tells, what waits to be told and what went wrong
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a test to each of them, or to one
    Test {
        /// Its name in notify.toml
        target: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `outlast init`
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The project's directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The project's name [default: made from the directory's]
    #[arg(long)]
    pub name: Option<String>,
    /// How its metrics are called [default: by the packages that it names]
    #[arg(long, value_name = "NAME", value_parser = ["lightning", "transformers", "keras", "classification", "regression"])]
    pub template: Option<String>,
    /// Write the file anew where it is there already
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// What a run does, behind `--`
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
