//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng): values in, bytes out.

/// LINKTYPE_RAW: a packet begins with its IP header.
const RAW: u16 = 101;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const SECRETS: u32 = 10;

/// Secrets of WireGuard, as lines of text ("WGKL").
const WIREGUARD_KEY_LOG: u32 = 0x5747_4b4c;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards this host.
    In,
    /// From this host.
    Out,
}

/// An interface of the file; packets name it by its place.
#[derive(Clone, Debug)]
pub struct Interface<'a> {
    /// Name.
    pub name: &'a str,
    /// What its packets are.
    pub description: &'a str,
    /// Which packets were asked for; empty: all.
    pub filter: &'a str,
    /// Bytes kept of each.
    pub snap: u32,
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// On which interface.
    pub interface: u32,
    /// Wall time, in nanoseconds.
    pub at_ns: u64,
    /// As much as was kept.
    pub bytes: &'a [u8],
    /// Its length before it was cut.
    pub whole: u32,
    /// Which way.
    pub way: Way,
    /// For people.
    pub comment: &'a str,
}

/// What an interface has to say at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// From when on, wall time in nanoseconds.
    pub began_ns: u64,
    /// Until when.
    pub ended_ns: u64,
    /// Packets that matched.
    pub received: u64,
    /// Of them those that are not here.
    pub dropped: u64,
}

/// The first block of each file.
pub fn section() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend((-1i64).to_le_bytes()); // its length is not known yet
    option(&mut body, 4, concat!("vpnd ", env!("CARGO_PKG_VERSION")).as_bytes());
    end_options(&mut body);
    block(SECTION, body)
}

/// An interface.
pub fn interface(interface: &Interface<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(RAW.to_le_bytes());
    body.extend([0; 2]);
    body.extend(interface.snap.to_le_bytes());
    option(&mut body, 2, interface.name.as_bytes());
    option(&mut body, 3, interface.description.as_bytes());
    option(&mut body, 9, &[9]); // times are in nanoseconds
    if !interface.filter.is_empty() {
        let filter = [&[0], interface.filter.as_bytes()].concat(); // 0: text
        option(&mut body, 11, &filter);
    }
    end_options(&mut body);
    block(INTERFACE, body)
}

/// A packet.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(packet.bytes.len() + packet.comment.len() + 64);
    body.extend(packet.interface.to_le_bytes());
    time(&mut body, packet.at_ns);
    body.extend((packet.bytes.len() as u32).to_le_bytes());
    body.extend(packet.whole.max(packet.bytes.len() as u32).to_le_bytes());
    body.extend(packet.bytes);
    pad(&mut body);
    option(&mut body, 1, packet.comment.as_bytes());
    let way: u32 = match packet.way {
        Way::In => 1,
        Way::Out => 2,
    };
    option(&mut body, 2, &way.to_le_bytes());
    end_options(&mut body);
    block(PACKET, body)
}

/// What an interface has to say at the end.
pub fn statistics(interface: u32, statistics: &Statistics) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(interface.to_le_bytes());
    time(&mut body, statistics.ended_ns);
    for (code, at_ns) in [(2, statistics.began_ns), (3, statistics.ended_ns)] {
        let mut at = Vec::new();
        time(&mut at, at_ns);
        option(&mut body, code, &at);
    }
    option(&mut body, 4, &statistics.received.to_le_bytes());
    option(&mut body, 5, &statistics.dropped.to_le_bytes());
    end_options(&mut body);
    block(STATISTICS, body)
}

/// Keys that open WireGuard's messages, in the lines of Wireshark's key log; stands before the packets that they open.
pub fn wireguard_secrets(lines: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(WIREGUARD_KEY_LOG.to_le_bytes());
    body.extend((lines.len() as u32).to_le_bytes());
    body.extend(lines.as_bytes());
    pad(&mut body);
    block(SECRETS, body)
}

/// High half first.
fn time(body: &mut Vec<u8>, at_ns: u64) {
    body.extend(((at_ns >> 32) as u32).to_le_bytes());
    body.extend((at_ns as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // No text of ours is longer; one that were would break the file.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// Everything begins at a multiple of four.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: Vec<u8>) -> Vec<u8> {
    let length = (body.len() + 12) as u32;
    let mut block = Vec::with_capacity(body.len() + 12);
    block.extend(kind.to_le_bytes());
    block.extend(length.to_le_bytes());
    block.extend(body);
    block.extend(length.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of a file: their kinds; that both lengths of each agree, and all are whole words.
    fn kinds(mut file: &[u8]) -> Vec<u32> {
        let mut kinds = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(length - 4) as usize, length);
            kinds.push(word(0));
            file = &file[length..];
        }
        kinds
    }

    #[test]
    fn each_block_says_its_length_twice_and_ends_at_a_multiple_of_four() {
        for length in 0..9 {
            let text = "x".repeat(length);
            let bytes = vec![7; length];
            let file = [
                section(),
                interface(&Interface { name: &text, description: &text, filter: &text, snap: 9 }),
                wireguard_secrets(&text),
                packet(&Packet {
                    interface: 0,
                    at_ns: 1 << 40,
                    bytes: &bytes,
                    whole: 99,
                    way: Way::In,
                    comment: &text,
                }),
                statistics(0, &Statistics::default()),
            ];
            assert_eq!(kinds(&file.concat()), [SECTION, INTERFACE, SECRETS, PACKET, STATISTICS]);
        }
    }

    #[test]
    fn a_packet_is_never_longer_than_it_says_that_it_was() {
        let block =
            packet(&Packet { interface: 1, at_ns: 0, bytes: &[1; 8], whole: 3, way: Way::Out, comment: "" });
        assert_eq!(block[20..28], [8, 0, 0, 0, 8, 0, 0, 0]);
    }
}
