//! What `check` says of a file that is right, and yet may not do what was meant: who can read the metrics, whether the
//! sandbox is off, and whether the commands of hooks can run, here and under the service unit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::config::{Config, Hook};

/// Folders that vpnd@.service does not let its processes see: ProtectHome=, PrivateTmp=.
const HIDDEN: [(&str, &str); 5] = [
    ("/home", "ProtectHome="),
    ("/root", "ProtectHome="),
    ("/run/user", "ProtectHome="),
    ("/tmp", "PrivateTmp="),
    ("/var/tmp", "PrivateTmp="),
];

/// A sentence for each thing to think about.
pub(super) fn on(config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(address) = config.interface.metrics_listen.filter(|address| !address.ip().is_loopback()) {
        advice.push(format!(
            "interface.metrics_listen: {address} is no loopback address: whoever reaches it reads the names of peers, \
             and when they are there; let a firewall choose who may"
        ));
    }
    if !config.interface.sandbox {
        advice.push(
            "interface.sandbox: it is off: whoever takes the daemon over has all its rights; \"on\" is the default"
                .to_owned(),
        );
    }
    if config.interface.capture_secrets {
        advice.push(
            "interface.capture_secrets: `vpnd capture --with-secrets` may write the private key, and what opens each \
             session, into a file: take it out when the capture is done"
                .to_owned(),
        );
    }
    for (number, hook) in config.hooks.iter().enumerate() {
        let said = on_hook(hook);
        advice.extend(said.into_iter().map(|said| format!("hook[{}].run: {said}", number + 1)));
    }
    advice
}

fn on_hook(hook: &Hook) -> Vec<String> {
    let path = &hook.program;
    let shown = path.display();
    let mut advice = Vec::new();
    match fs::metadata(path) {
        Err(error) => advice.push(format!("{shown} cannot be run: {error}")),
        Ok(found) if !found.is_file() => advice.push(format!("{shown} is no file, so it cannot be run")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            advice.push(format!("{shown} cannot be run: nobody may execute it; chmod +x it"));
        }
        Ok(found) if found.permissions().mode() & 0o001 == 0 => advice.push(format!(
            "{shown} may be executed by its owner (uid {}) and group alone, and vpnd@.service runs as the user vpnd",
            found.uid()
        )),
        Ok(found) if found.permissions().mode() & 0o022 != 0 => {
            advice.push(format!("{shown} can be altered by others, who then run as the daemon: chmod go-w it"));
        }
        Ok(_) => {}
    }
    advice.extend(hidden(path).map(|why| {
        format!(
            "{shown} cannot be seen under vpnd@.service ({why}): put it elsewhere, such as /usr/local/bin"
        )
    }));
    advice
}

/// Which directive of the unit hides it.
fn hidden(path: &Path) -> Option<&'static str> {
    HIDDEN.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, directive)| *directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(lines: &str) -> Vec<String> {
        let text =
            format!("[interface]\nprivate_key = \"yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\"\n{lines}\n");
        let none = |_: &Path| Err(std::io::Error::other("no file is read"));
        on(&crate::config::parse(&text, Path::new("vpn0.toml"), &none).expect("it is right"))
    }

    #[test]
    fn metrics_for_all_the_world_and_hooks_that_cannot_run_are_named() {
        assert_eq!(advice("metrics_listen = \"127.0.0.1:9586\""), [""; 0]);
        assert_eq!(advice("metrics_listen = \"[::1]:9586\"\n[[hook]]\nrun = [\"/bin/sh\"]"), [""; 0]);
        let [told] = &advice("metrics_listen = \"0.0.0.0:9586\"")[..] else { panic!("one") };
        assert!(told.starts_with("interface.metrics_listen: 0.0.0.0:9586 is no loopback address"), "{told}");
        let [told] = &advice("sandbox = \"off\"")[..] else { panic!("one") };
        assert!(told.starts_with("interface.sandbox: it is off"), "{told}");
        assert_eq!(advice("sandbox = \"on\"\ncapture_secrets = false"), [""; 0]);
        let [told] = &advice("capture_secrets = true")[..] else { panic!("one") };
        assert!(told.starts_with("interface.capture_secrets: "), "{told}");
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("hook");
        let hook = || advice(&format!("[[hook]]\nrun = [\"{}\"]", script.display()));
        assert!(hook()[0].starts_with("hook[1].run: ") && hook()[0].contains("No such file"), "{:?}", hook());
        fs::write(&script, "#!/bin/sh\n").expect("the folder can be written");
        for (mode, said) in [(0o644, "chmod +x"), (0o750, "by its owner"), (0o777, "chmod go-w")] {
            fs::set_permissions(&script, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert!(hook()[0].contains(said), "{mode:o}: {:?}", hook());
        }
        assert_eq!(hidden(Path::new("/home/me/hook")), Some("ProtectHome="));
        assert_eq!(hidden(Path::new("/homes/hook")), None);
    }
}
