//! `canopus install`: a systemd unit, so that the cluster starts with the host.

use super::{DataDir, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const UNIT: &str = "canopus.service";
/// Where the unit goes, below the root directory.
const UNIT_PATH: &str = "etc/systemd/system/canopus.service";

/// The file system the unit is for: this host's, or an image's that is being made.
#[derive(Args, Clone, Debug)]
pub struct Root {
    /// Directory with the file system to install into, as for an image that is being made: nothing is started
    #[arg(long, value_name = "DIR", default_value = "/", env = "DESTDIR", hide_env_values = true)]
    pub root: PathBuf,
}

impl Root {
    pub fn unit(&self) -> PathBuf {
        self.root.join(UNIT_PATH)
    }

    /// Whether it is the running host's own and that runs systemd, as sd_booted(3) tells.
    pub fn has_systemd(&self) -> bool {
        self.is_host() && Path::new("/run/systemd/system").is_dir()
    }

    pub fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// Install a systemd unit that runs `canopus up` when the host starts
#[derive(Args)]
#[command(after_help = "\
Examples:
  canopus install
  canopus install --print
  canopus install --root /mnt/image
  canopus install -- --bind-address 10.0.0.5")]
pub struct InstallArgs {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    root: Root,
    /// Print the unit instead of installing it
    #[arg(long)]
    print: bool,
    /// Install the unit without starting it
    #[arg(long)]
    no_start: bool,
    /// Further arguments for `canopus up`
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &InstallArgs) -> Result<()> {
    let program = std::env::current_exe().context("failed to find this program's own path")?;
    let unit = unit(&program, &args.data.data_dir, &args.arguments)?;
    if args.print {
        return output::print(&unit);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("installing a systemd unit needs root (try it with sudo)");
    }
    if args.root.is_host() && !args.root.has_systemd() {
        bail!(
            "this host does not run systemd, so nothing was installed: let whatever starts services here run \
             `canopus up` (--print shows the unit, --root DIR writes it into another file system)"
        );
    }
    let path = args.root.unit();
    let folder = path.parent().context("the unit lies in a directory")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    write(&path, &unit)?;
    output::print(&format!("wrote {}\n", path.display()))?;
    if !args.root.is_host() {
        let root = args.root.root.display();
        return output::print(&format!("to have it start with that system: systemctl --root {root} enable canopus\n"));
    }
    systemctl(&["daemon-reload"])?;
    if args.no_start {
        systemctl(&["enable", UNIT])?;
        return output::print("enabled; start it with: systemctl start canopus\n");
    }
    systemctl(&["enable", "--now", UNIT])?;
    output::print("enabled and started; follow it with: journalctl -fu canopus\n")
}

/// Replaces the file as a whole: systemd never sees half a unit.
fn write(path: &Path, text: &str) -> Result<()> {
    let temporary: PathBuf = path.with_extension("service.new");
    let failed = || format!("failed to write {}", path.display());
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&temporary).with_context(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    fs::rename(&temporary, path).with_context(failed)
}

pub fn systemctl(args: &[&str]) -> Result<()> {
    let shown = format!("systemctl {}", args.join(" "));
    let status = Command::new("systemctl").args(args).status().with_context(|| format!("failed to run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// The unit. `KillMode=process`: pods' shims live in the unit's group for a moment and must outlive the agent.
fn unit(program: &Path, data_dir: &Path, arguments: &[String]) -> Result<String> {
    let mut words = vec![path_word(program)?, "up".into(), "--data-dir".into(), path_word(data_dir)?];
    for argument in arguments {
        words.push(word(argument)?);
    }
    Ok(format!(
        "\
[Unit]
Description=Canopus: Kubernetes in one binary
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={}
TimeoutStartSec=5min
Restart=always
RestartSec=1s
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
",
        words.join(" ")
    ))
}

fn path_word(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).with_context(|| format!("failed to make {} absolute", path.display()))?;
    word(absolute.to_str().context("a path in a systemd unit must be UTF-8")?)
}

/// One word of `ExecStart=`, quoted where systemd would read it as more (systemd.service(5), "Command lines").
fn word(text: &str) -> Result<String> {
    if text.chars().any(char::is_control) {
        bail!("an argument in a systemd unit must not contain control characters: {text:?}");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.into());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '$' | '%' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    Ok(quoted + "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_cluster() {
        let unit = unit(Path::new("/usr/bin/canopus"), Path::new("/srv/my data"), &["--node-name=a$b".into()]).unwrap();
        let start = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(start, "ExecStart=/usr/bin/canopus up --data-dir \"/srv/my data\" \"--node-name=a$$b\"");
        assert!(unit.contains("KillMode=process\n"));
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_unit() {
        assert!(word("a\nExecStartPre=/bin/evil").is_err());
        assert_eq!(word("50%\"\\").unwrap(), "\"50%%\\\"\\\\\"");
        assert_eq!(word("").unwrap(), "\"\"");
    }

    #[test]
    fn the_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("canopus.service");
        for text in ["one", "two"] {
            write(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
