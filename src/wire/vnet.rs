//! The virtio network header (`struct virtio_net_hdr`, linux/virtio_net.h) that stands before each packet of a TUN
//! device opened with IFF_VNET_HDR: what is left to do for a checksum, and how a super-packet is to be cut.

/// Bytes of it; the kernel's default for a TUN (TUNGETVNETHDRSZ).
pub const VNET_HEADER_LEN: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CHECKSUM: u8 = 1;
/// VIRTIO_NET_HDR_GSO_ECN.
const ECN: u8 = 0x80;

/// How a packet is to be cut into segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// Not at all.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, into datagrams of their own (not fragments).
    Udp,
}

/// The header; numbers are in the machine's byte order on the wire to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Whether and where a checksum is to be finished.
    pub checksum: Option<ChecksumPlace>,
    /// How to cut.
    pub gso: Gso,
    /// The first segment alone carries CWR (RFC 3168, section 6.1.2).
    pub ecn: bool,
    /// Bytes of all headers; the kernel is known to be wrong here on forwarded packets.
    pub headers_len: u16,
    /// Bytes of payload in each segment but the last.
    pub gso_size: u16,
}

/// A checksum field that holds the sum of the pseudo-header, and waits for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumPlace {
    /// From where on bytes are summed.
    pub start: u16,
    /// The field, counted from there.
    pub offset: u16,
}

/// A kind of segmentation that was never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown segmentation type {0:#x}")]
pub struct UnknownGso(pub u8);

impl VnetHeader {
    /// Reads it; that it contradicts its packet is not seen here.
    pub fn parse(bytes: &[u8; VNET_HEADER_LEN]) -> Result<Self, UnknownGso> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let gso = match bytes[1] & !ECN {
            0 => Gso::None,
            1 => Gso::TcpV4,
            4 => Gso::TcpV6,
            5 => Gso::Udp,
            _ => return Err(UnknownGso(bytes[1])),
        };
        let checksum = ChecksumPlace { start: number(6), offset: number(8) };
        Ok(Self {
            checksum: (bytes[0] & NEEDS_CHECKSUM != 0).then_some(checksum),
            gso,
            ecn: bytes[1] & ECN != 0,
            headers_len: number(2),
            gso_size: number(4),
        })
    }

    /// As the kernel reads it.
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let kind = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => 1,
            Gso::TcpV6 => 4,
            Gso::Udp => 5,
        };
        let place = self.checksum.unwrap_or(ChecksumPlace { start: 0, offset: 0 });
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        bytes[1] = kind | if self.ecn { ECN } else { 0 };
        for (at, number) in [(2, self.headers_len), (4, self.gso_size), (6, place.start), (8, place.offset)] {
            bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_stand_where_the_kernel_has_them() {
        let header = VnetHeader {
            checksum: Some(ChecksumPlace { start: 0x0102, offset: 0x0304 }),
            gso: Gso::TcpV6,
            ecn: true,
            headers_len: 0x0506,
            gso_size: 0x0708,
        };
        let [a, b, c, d] = [0x0506_u16, 0x0708, 0x0102, 0x0304].map(u16::to_ne_bytes);
        assert_eq!(header.to_bytes(), [1, 0x84, a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]);
        assert_eq!(VnetHeader::default().to_bytes(), [0; 10]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for gso in [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::Udp] {
            for checksum in [None, Some(ChecksumPlace { start: 40, offset: 16 })] {
                for ecn in [false, true] {
                    let header = VnetHeader { checksum, gso, ecn, headers_len: 60, gso_size: 1368 };
                    assert_eq!(VnetHeader::parse(&header.to_bytes()), Ok(header));
                }
            }
        }
    }

    #[test]
    fn kinds_that_were_never_asked_for_are_refused() {
        let unknown: Vec<u8> = (0..=255).filter(|kind| ![0, 1, 4, 5].contains(&(kind & 0x7f))).collect();
        for kind in unknown {
            let mut bytes = [0; VNET_HEADER_LEN];
            bytes[1] = kind;
            assert_eq!(VnetHeader::parse(&bytes), Err(UnknownGso(kind)));
        }
    }

    #[test]
    fn a_checksum_that_is_valid_already_is_none_to_finish() {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = 2; // VIRTIO_NET_HDR_F_DATA_VALID
        assert_eq!(VnetHeader::parse(&bytes), Ok(VnetHeader::default()));
    }
}
