//! The programs that are measured: what is built first, what is found, and what is absent.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, child};

/// What can stand beside the lab. Absent ones are `None`, and named in the log and in the report.
pub(crate) struct Programs {
    /// The folder with Cargo.toml.
    pub(crate) root: PathBuf,
    /// The lab.
    pub(crate) lab: PathBuf,
    /// The cargo profile of this program, and of everything it builds.
    pub(crate) profile: String,
    rivals: Vec<Rival>,
}

/// A program that is not bimodal's.
pub(crate) struct Rival {
    /// As the command line and the tables call it.
    pub(crate) name: &'static str,
    /// Where it is, if it is.
    pub(crate) path: Option<PathBuf>,
    /// What it says of its version, or where it would come from.
    pub(crate) version: String,
}

/// Contenders in Rust, with the version to print: that in their manifest.
const CONTENDERS: [(&str, &str); 4] =
    [("bare_mio", "mio"), ("bare_hyper", "hyper"), ("axum_tokio", "axum"), ("actix", "actix-web")];

/// Programs that are installed or not, with the argument that makes them tell their version.
const INSTALLED: [(&str, &str); 3] =
    [("nginx", "-v"), ("node", "--version"), ("redis-server", "--version")];

/// PM2 without its daemon, which `pm2` starts even to tell its version.
pub(crate) const PM2: &str = "pm2-runtime";

impl Programs {
    /// Builds what is ours unless told not to, and looks for the rest.
    pub(crate) fn find(no_build: bool) -> Result<Self> {
        let (root, profile) = (root()?, profile()?);
        let lab = env::current_exe()?.with_file_name("lab");
        if !no_build {
            build(&root, &profile)?;
        }
        if !lab.exists() {
            return Err(format!("{}: not built; leave --no-build out", lab.display()).into());
        }
        let contenders = CONTENDERS.iter().map(|(name, of)| contender(&root, &profile, name, of));
        let installed = INSTALLED.iter().map(|(name, argument)| installed(name, name, argument));
        let pm2 = root.join("benches/contenders/pm2.sh");
        let pm2 = self::installed(PM2, &pm2.to_string_lossy(), "--version");
        let rivals = contenders.chain(installed).chain([pm2]).collect();
        Ok(Self { root, lab, profile, rivals })
    }

    /// Where a rival is, if it is.
    pub(crate) fn rival(&self, name: &str) -> Option<&Path> {
        self.rivals.iter().find(|rival| rival.name == name)?.path.as_deref()
    }

    /// A file beside the contenders.
    pub(crate) fn contenders(&self, file: &str) -> PathBuf {
        self.root.join("benches/contenders").join(file)
    }

    /// What there is to compare with, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |rival: &Rival| match rival.path {
            Some(_) => format!("{}: {}", rival.name, rival.version),
            None => format!("{}: absent, skipped ({})", rival.name, rival.version),
        };
        self.rivals.iter().map(line).collect()
    }

    /// Tells the log what will be skipped.
    pub(crate) fn say(&self) {
        self.lines().iter().for_each(|line| eprintln!("report: {line}"));
    }
}

/// The folder of the package: where cargo says it is, else where it was built.
pub(crate) fn root() -> Result<PathBuf> {
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    if root.join("benches/contenders").is_dir() {
        return Ok(root);
    }
    Err(format!("{}: the repository is not there any more; use cargo run", root.display()).into())
}

/// The profile under which this program was built: the folder above its own.
fn profile() -> Result<String> {
    let exe = env::current_exe()?;
    let folder = exe.ancestors().nth(2).and_then(Path::file_name).and_then(|name| name.to_str());
    match folder {
        Some("debug") => Ok("dev".to_owned()),
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("{}: not in target/PROFILE/examples", exe.display()).into()),
    }
}

fn build(root: &Path, profile: &str) -> Result<()> {
    eprintln!("report: building the lab and the contenders (profile {profile})");
    let exe = env::current_exe()?;
    let target = exe.ancestors().nth(3).ok_or("this program is not in a target folder")?;
    let mut lab = child::command("cargo");
    lab.args(["build", "--example", "lab", "--all-features", "--profile", profile]);
    lab.arg("--target-dir").arg(target);
    cargo(&mut lab, root)?;
    let mut contenders = child::command("cargo");
    contenders.args(["build", "--locked", "--profile", profile]);
    if let Err(error) = cargo(&mut contenders, &root.join("benches/contenders")) {
        eprintln!("report: the contenders are skipped: {error}");
    }
    Ok(())
}

fn cargo(command: &mut Command, folder: &Path) -> Result<()> {
    let guard = child::Guard::start(command.current_dir(folder).stdin(Stdio::null()))?;
    let status = guard.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("cargo build in {}: {status}", folder.display()).into())
}

fn contender(root: &Path, profile: &str, name: &'static str, of: &str) -> Rival {
    let folder = if profile == "dev" { "debug" } else { profile };
    let package = root.join("benches/contenders");
    let path = package.join("target").join(folder).join(name);
    let version = match locked(&package, of) {
        Some(version) => format!("{of} {version}"),
        None => of.to_owned(),
    };
    Rival { name, path: path.exists().then_some(path), version }
}

/// The version of a package in the contenders' lock file.
fn locked(package: &Path, name: &str) -> Option<String> {
    let lock = std::fs::read_to_string(package.join("Cargo.lock")).ok()?;
    let entry = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?.1;
    Some(entry.split('"').next()?.to_owned())
}

/// A program that may be there, and what `teller` says of its version.
fn installed(name: &'static str, teller: &str, argument: &str) -> Rival {
    let Some(path) = on_path(name) else {
        return Rival { name, path: None, version: "not installed".to_owned() };
    };
    let teller = if teller == name { path.clone() } else { PathBuf::from(teller) };
    let said = Command::new(teller).arg(argument).stdin(Stdio::null()).output();
    let line = |text: &[u8]| String::from_utf8_lossy(text).lines().next().map(str::to_owned);
    // nginx tells it on its standard error.
    let version = said.ok().and_then(|said| line(&said.stdout).or_else(|| line(&said.stderr)));
    Rival { name, path: Some(path), version: version.unwrap_or_default() }
}

/// Looks where a system keeps its servers, too: a user's PATH often leaves that out.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let further = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut found = env::split_paths(&path).chain(further).map(|folder| folder.join(name));
    found.find(|path| path.is_file())
}
