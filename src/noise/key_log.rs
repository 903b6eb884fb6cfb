//! The keys of one handshake as text, for a capture that is allowed to have them: whoever reads it opens all that the
//! session carries, and can be this end of the tunnel.

use std::fmt;

use zeroize::Zeroizing;

use super::{Identity, PresharedKey, PrivateKey, PublicKey};

/// Lines of Wireshark's key log for WireGuard (`wg.keylog_file`); erases itself.
#[derive(Clone)]
pub struct KeyLog(Zeroizing<String>);

impl KeyLog {
    /// What it takes to follow a handshake between us and the owner of `remote`, in which `ephemeral` is ours. The
    /// order matters: a preshared key belongs to the ephemeral key before it.
    pub fn new(
        ours: &Identity,
        remote: &PublicKey,
        ephemeral: &PrivateKey,
        preshared: &PresharedKey,
    ) -> Self {
        let lines = [
            ("LOCAL_STATIC_PRIVATE_KEY", ours.private_key().to_base64()),
            ("REMOTE_STATIC_PUBLIC_KEY", Zeroizing::new(remote.to_string())),
            ("LOCAL_EPHEMERAL_PRIVATE_KEY", ephemeral.to_base64()),
            ("PRESHARED_KEY", preshared.to_base64()),
        ];
        // Room for all, so that none of it is left where a smaller text was.
        let length = lines.iter().map(|(name, key)| name.len() + key.len() + 2).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        let given = if preshared.is_zero() { &lines[..3] } else { &lines[..] };
        for (name, key) in given {
            for part in [name, "=", key, "\n"] {
                text.push_str(part);
            }
        }
        Self(text)
    }

    /// For the reader of a capture alone.
    pub fn expose(&self) -> &Zeroizing<String> {
        &self.0
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_that_wireshark_reads_and_no_more_room_is_taken_for_them() {
        let ours = Identity::new(PrivateKey::new([1; 32]));
        let (remote, ephemeral) = (PublicKey([2; 32]), PrivateKey::new([3; 32]));
        let log = KeyLog::new(&ours, &remote, &ephemeral, &PresharedKey::new([4; 32]));
        let expected = "LOCAL_STATIC_PRIVATE_KEY=AAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUE=\n\
             REMOTE_STATIC_PUBLIC_KEY=AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\
             LOCAL_EPHEMERAL_PRIVATE_KEY=AAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA0M=\n\
             PRESHARED_KEY=BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=\n";
        assert_eq!(log.expose().as_str(), expected);
        assert_eq!(log.expose().capacity(), expected.len());
        let without = KeyLog::new(&ours, &remote, &ephemeral, &PresharedKey::default());
        assert_eq!(without.expose().lines().count(), 3);
        assert_eq!(format!("{log:?}"), "KeyLog(…)");
    }
}
