//! Which files there are (landlock(7)): what is not named here cannot be opened, made or removed, whoever owns it.
//! It binds the calling thread and those that it starts: so it comes before there are others.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// The newest version whose rights were looked at one by one. Later ones restrict more, such as which sockets may be
/// connected to by their path, which a service manager's and the journal's are.
const KNOWN: ABI = ABI::V6;

/// What a process needs. What does not exist (any more) is left out.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// To be read, with all below.
    pub read: Vec<PathBuf>,
    /// Files that are written anew and renamed into place.
    pub keep: Vec<PathBuf>,
    /// Where sockets appear and vanish.
    pub sockets: Vec<PathBuf>,
    /// Devices to be opened and set up.
    pub devices: Vec<PathBuf>,
}

/// Why no file is kept from us.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// Linux before 5.13, or built without.
    #[error("this kernel has no Landlock")]
    Unknown,
    /// It is there, and switched off at boot.
    #[error("Landlock is not among this kernel's security modules (`lsm=` at boot)")]
    NotEnabled,
    /// Linux before 5.19.
    #[error("this kernel's Landlock (version {0}) lets no file be moved between folders")]
    TooOld(i32),
    /// It would not take the rules.
    #[error("Landlock: {0}")]
    Refused(#[from] RulesetError),
}

/// Nothing but these files from now on. Says which version of Landlock sees to it.
pub fn only(folders: &Folders) -> Result<i32, Absent> {
    const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    const KEEP: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | MakeReg | RemoveFile | Truncate
    });
    const SOCKETS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadDir | MakeDir | RemoveDir | MakeSock | RemoveFile | Refer
    });
    const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});
    let mut rules = ruleset()?;
    for (paths, access) in [
        (&folders.read, READ),
        (&folders.keep, KEEP),
        (&folders.sockets, SOCKETS),
        (&folders.devices, DEVICE),
    ] {
        for path in paths {
            rules = allow(rules, path, access)?;
        }
    }
    enforce(rules)
}

/// All may be read as before, and nothing written.
pub(super) fn read_only() -> Result<i32, Absent> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    enforce(allow(ruleset()?, Path::new("/"), read)?)
}

/// All that the known versions can forbid is forbidden, as far as this kernel's can; signals to others, too.
fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::Signal)?
        .create()
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    rules.add_rule(PathBeneath::new(place, access))
}

fn enforce(rules: RulesetCreated) -> Result<i32, Absent> {
    let done = rules.restrict_self()?;
    match (done.ruleset, done.landlock) {
        (_, LandlockStatus::NotImplemented) => Err(Absent::Unknown),
        (_, LandlockStatus::NotEnabled) => Err(Absent::NotEnabled),
        (RulesetStatus::NotEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Err(Absent::TooOld(effective_abi as i32))
        }
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            Ok(kernel_abi.unwrap_or(effective_abi as i32))
        }
    }
}
