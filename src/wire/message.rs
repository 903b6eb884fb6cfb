//! WireGuard's four messages (paper, section 5.4).

use super::Malformed;

/// Bytes of a handshake initiation (type 1).
pub const INITIATION_LEN: usize = 148;
/// Bytes of a handshake response (type 2).
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply (type 3).
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes before the sealed payload of a transport message (type 4).
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Bytes of the Poly1305 tag.
pub const TAG_LEN: usize = 16;

/// A receiver index: names a session to the end that chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u32);

/// Which of the four a datagram claims to be; its length has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    CookieReply,
    /// Type 4: at least a header and a tag.
    Transport,
}

/// Type (little-endian u32: three reserved zero bytes) and length of a datagram.
pub fn classify(datagram: &[u8]) -> Result<Kind, Malformed> {
    let kind = datagram.first_chunk().ok_or(Malformed::Length)?;
    let (kind, fits) = match u32::from_le_bytes(*kind) {
        1 => (Kind::Initiation, datagram.len() == INITIATION_LEN),
        2 => (Kind::Response, datagram.len() == RESPONSE_LEN),
        3 => (Kind::CookieReply, datagram.len() == COOKIE_REPLY_LEN),
        4 => (Kind::Transport, datagram.len() >= TRANSPORT_HEADER_LEN + TAG_LEN),
        _ => return Err(Malformed::Type),
    };
    if fits { Ok(kind) } else { Err(Malformed::Length) }
}

/// First message, initiator to responder, without its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// The initiator's index.
    pub sender: Index,
    /// Its ephemeral public key.
    pub ephemeral: [u8; 32],
    /// Its static public key, sealed.
    pub encrypted_static: [u8; 48],
    /// TAI64N, sealed.
    pub encrypted_timestamp: [u8; 28],
}

impl Initiation {
    /// Reads all but the macs.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(Kind::Initiation, datagram)?;
        Ok(Self {
            sender: fields.index(),
            ephemeral: fields.bytes(),
            encrypted_static: fields.bytes(),
            encrypted_timestamp: fields.bytes(),
        })
    }
    /// The message with both macs zero: [`crate::noise::macs`] fills them in.
    pub fn to_bytes(&self) -> [u8; INITIATION_LEN] {
        let mut bytes = [0; INITIATION_LEN];
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(&self.sender.0.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.ephemeral);
        bytes[40..88].copy_from_slice(&self.encrypted_static);
        bytes[88..116].copy_from_slice(&self.encrypted_timestamp);
        bytes
    }
}

/// Second message, responder to initiator, without its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The responder's index.
    pub sender: Index,
    /// The initiator's index.
    pub receiver: Index,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The sealed empty payload.
    pub encrypted_nothing: [u8; 16],
}

impl Response {
    /// Reads all but the macs.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(Kind::Response, datagram)?;
        Ok(Self {
            sender: fields.index(),
            receiver: fields.index(),
            ephemeral: fields.bytes(),
            encrypted_nothing: fields.bytes(),
        })
    }
    /// The message with both macs zero.
    pub fn to_bytes(&self) -> [u8; RESPONSE_LEN] {
        let mut bytes = [0; RESPONSE_LEN];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&self.sender.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.receiver.0.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.ephemeral);
        bytes[44..60].copy_from_slice(&self.encrypted_nothing);
        bytes
    }
}

/// The answer under load to a message with a valid mac1 (section 5.4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The index in the message that is answered.
    pub receiver: Index,
    /// XChaCha20-Poly1305 nonce.
    pub nonce: [u8; 24],
    /// The cookie, sealed.
    pub encrypted_cookie: [u8; 32],
}

impl CookieReply {
    /// Reads a cookie reply.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(Kind::CookieReply, datagram)?;
        Ok(Self { receiver: fields.index(), nonce: fields.bytes(), encrypted_cookie: fields.bytes() })
    }
    /// Its 64 bytes.
    pub fn to_bytes(&self) -> [u8; COOKIE_REPLY_LEN] {
        let mut bytes = [0; COOKIE_REPLY_LEN];
        bytes[0] = 3;
        bytes[4..8].copy_from_slice(&self.receiver.0.to_le_bytes());
        bytes[8..32].copy_from_slice(&self.nonce);
        bytes[32..64].copy_from_slice(&self.encrypted_cookie);
        bytes
    }
}

/// Header of a transport message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// The receiver's index.
    pub receiver: Index,
    /// The nonce counter.
    pub counter: u64,
}

impl TransportHeader {
    /// Reads the 16 bytes in front of the sealed payload.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(Kind::Transport, datagram)?;
        Ok(Self { receiver: fields.index(), counter: u64::from_le_bytes(fields.bytes()) })
    }
    /// Writes type, receiver and counter.
    pub fn write(&self, header: &mut [u8; TRANSPORT_HEADER_LEN]) {
        header[..4].copy_from_slice(&4u32.to_le_bytes());
        header[4..8].copy_from_slice(&self.receiver.0.to_le_bytes());
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
    }
}

/// What is left to read of a datagram of known kind.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Behind the type; refuses a datagram of another kind.
    fn of(kind: Kind, datagram: &'a [u8]) -> Result<Self, Malformed> {
        if classify(datagram)? != kind {
            return Err(Malformed::Type);
        }
        Ok(Self(&datagram[4..]))
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("classify checked the length of its kind");
        self.0 = rest;
        *field
    }

    fn index(&mut self) -> Index {
        Index(u32::from_le_bytes(self.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(kind: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xa5; len];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn each_type_has_its_length() {
        for (kind, len, expected) in
            [(1, 148, Kind::Initiation), (2, 92, Kind::Response), (3, 64, Kind::CookieReply)]
        {
            assert_eq!(classify(&datagram(kind, len)), Ok(expected));
            assert_eq!(classify(&datagram(kind, len - 1)), Err(Malformed::Length));
            assert_eq!(classify(&datagram(kind, len + 1)), Err(Malformed::Length));
        }
        assert_eq!(classify(&datagram(4, 31)), Err(Malformed::Length));
        assert_eq!(classify(&datagram(4, 32)), Ok(Kind::Transport));
        assert_eq!(classify(&datagram(4, 65507)), Ok(Kind::Transport));
    }

    #[test]
    fn a_reserved_byte_that_is_not_zero_is_another_type() {
        for at in 1..4 {
            for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32)] {
                let mut bytes = datagram(kind, len);
                bytes[at] = 1;
                assert_eq!(classify(&bytes), Err(Malformed::Type), "type {kind}, byte {at}");
            }
        }
    }

    #[test]
    fn types_beside_the_four_are_unknown() {
        for kind in [0, 5, 255, 0x0100_0000, u32::MAX] {
            assert_eq!(classify(&datagram(kind, 148)), Err(Malformed::Type), "type {kind}");
        }
    }

    #[test]
    fn less_than_a_type_is_too_short() {
        for len in 0..4 {
            assert_eq!(classify(&[1, 0, 0][..len]), Err(Malformed::Length));
        }
    }

    #[test]
    fn a_message_of_another_type_is_not_read() {
        assert_eq!(Initiation::parse(&datagram(2, 92)), Err(Malformed::Type));
        assert_eq!(Response::parse(&datagram(1, 148)), Err(Malformed::Type));
        assert_eq!(CookieReply::parse(&datagram(4, 64)), Err(Malformed::Type));
        assert_eq!(TransportHeader::parse(&datagram(3, 64)), Err(Malformed::Type));
    }

    #[test]
    fn fields_stand_where_the_paper_puts_them() {
        let mut bytes: Vec<u8> = (0..148).collect();
        bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
        let initiation = Initiation::parse(&bytes).unwrap();
        assert_eq!(initiation.sender, Index(0x0706_0504));
        assert_eq!(initiation.ephemeral[0], 8);
        assert_eq!(initiation.encrypted_static[0], 40);
        assert_eq!(initiation.encrypted_timestamp[0], 88);
        assert_eq!(initiation.encrypted_timestamp[27], 115);

        let mut bytes: Vec<u8> = (0..92).collect();
        bytes[..4].copy_from_slice(&[2, 0, 0, 0]);
        let response = Response::parse(&bytes).unwrap();
        assert_eq!((response.sender, response.receiver), (Index(0x0706_0504), Index(0x0b0a_0908)));
        assert_eq!((response.ephemeral[0], response.encrypted_nothing[0]), (12, 44));

        let mut bytes: Vec<u8> = (0..64).collect();
        bytes[..4].copy_from_slice(&[3, 0, 0, 0]);
        let reply = CookieReply::parse(&bytes).unwrap();
        assert_eq!((reply.receiver, reply.nonce[0], reply.encrypted_cookie[0]), (Index(0x0706_0504), 8, 32));

        let mut bytes: Vec<u8> = (0..32).collect();
        bytes[..4].copy_from_slice(&[4, 0, 0, 0]);
        let header = TransportHeader::parse(&bytes).unwrap();
        assert_eq!((header.receiver, header.counter), (Index(0x0706_0504), 0x0f0e_0d0c_0b0a_0908));
    }

    #[test]
    fn unfilled_macs_are_zero() {
        let bytes: Vec<u8> = datagram(1, 148);
        assert_eq!(Initiation::parse(&bytes).unwrap().to_bytes()[116..], [0; 32]);
        let bytes: Vec<u8> = datagram(2, 92);
        assert_eq!(Response::parse(&bytes).unwrap().to_bytes()[60..], [0; 32]);
    }

    /// Any bytes, most of them with a type and a length that mean something.
    fn datagrams() -> impl Strategy<Value = Vec<u8>> {
        let lengths = prop_oneof![Just(148usize), Just(92), Just(64), Just(32), 0..200usize];
        (lengths, 0..6u8, any::<bool>(), proptest::collection::vec(any::<u8>(), 200)).prop_map(
            |(len, kind, typed, mut bytes)| {
                if typed {
                    bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
                }
                bytes.truncate(len);
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn what_parses_writes_the_same_bytes_and_nothing_panics(bytes in datagrams()) {
            let kind = classify(&bytes);
            let initiation = Initiation::parse(&bytes);
            prop_assert_eq!(initiation.is_ok(), kind == Ok(Kind::Initiation));
            if let Ok(message) = initiation {
                prop_assert_eq!(&message.to_bytes()[..116], &bytes[..116]);
            }
            let response = Response::parse(&bytes);
            prop_assert_eq!(response.is_ok(), kind == Ok(Kind::Response));
            if let Ok(message) = response {
                prop_assert_eq!(&message.to_bytes()[..60], &bytes[..60]);
            }
            let reply = CookieReply::parse(&bytes);
            prop_assert_eq!(reply.is_ok(), kind == Ok(Kind::CookieReply));
            if let Ok(message) = reply {
                prop_assert_eq!(&message.to_bytes()[..], &bytes[..]);
            }
            let header = TransportHeader::parse(&bytes);
            prop_assert_eq!(header.is_ok(), kind == Ok(Kind::Transport));
            if let Ok(header) = header {
                let mut written = [0xff; TRANSPORT_HEADER_LEN];
                header.write(&mut written);
                prop_assert_eq!(&written[..], &bytes[..16]);
            }
        }
    }
}
