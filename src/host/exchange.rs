//! One netlink socket, question and answer: batches of changes in one system call each, and dumps that are
//! read as they come. (`rtnetlink`'s own handle keeps a whole dump in memory and sends one message a call:
//! 130,000 routes would cost 65 MB and a wake each.)

use std::{io, time::Duration};

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
        NlasIterator,
    },
    sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::time::sleep;

/// Changes in one system call. Their answers wait in the receive buffer, about 1 KB of its account each.
pub(super) const BATCH: usize = 128;

/// The kernel sends dumps in pieces of at most 32 KB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Room for the answers of a batch, with plenty to spare; the kernel clamps it to net.core.rmem_max and doubles it.
const SOCKET_BUFFER: libc::c_int = 1 << 20;

/// On a host whose routes change all the time every dump is "interrupted": then the last one has to do.
const DUMP_ATTEMPTS: usize = 5;

/// How often, and how far apart, what the kernel does not take or tell at once is tried again.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);

/// One change: its flags beside REQUEST and ACK, and what it says.
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) message: RouteNetlinkMessage,
}

/// The kernel said no.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: io::Error,
    /// Its reason in words, where it gives one (extended acknowledgement).
    pub(super) reason: Option<String>,
}

impl Refused {
    pub(super) fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { error, reason: None }
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
pub(super) struct Exchange {
    socket: TokioSocket,
    sequence: u32,
    received: Vec<u8>,
    /// A dump whose end has not been read (its caller went away): the kernel refuses another one until then.
    unfinished: Option<u32>,
}

impl Exchange {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let options = socket.socket_mut();
        options.set_rx_buf_sz(SOCKET_BUFFER)?;
        // Comfort, each absent from some older kernel: short answers, reasons in words, dumps that the kernel
        // filters. All answers are checked here again.
        let _ = options.set_cap_ack(true);
        let _ = options.set_ext_ack(true);
        let _ = options.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(RECEIVE_BYTES), unfinished: None })
    }

    /// Sends at most [`BATCH`] changes in one system call; returns those that were refused, by position. An
    /// error means that it is unknown which were done.
    pub(super) async fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<(usize, Refused)>> {
        debug_assert!(requests.len() <= BATCH, "answers must fit the receive buffer");
        let count = requests.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        self.finish_dump().await?;
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(count * 80);
        for request in requests {
            self.append(&mut bytes, request.flags | NLM_F_ACK, request.message);
        }
        self.send(&bytes).await?;
        self.answers(first, count).await
    }

    async fn answers(&mut self, first: u32, count: usize) -> io::Result<Vec<(usize, Refused)>> {
        let mut refused = Vec::new();
        let mut open = count;
        while open > 0 {
            self.receive().await?;
            for message in messages(&self.received) {
                let position = message.header.sequence_number.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                if position >= count {
                    continue; // to a question whose asker went away
                }
                open -= 1;
                if answer.code.is_some() {
                    refused.push((position, refusal(&answer, message.header.flags)));
                }
            }
        }
        Ok(refused)
    }

    /// Asks for one thing, such as a link.
    pub(super) async fn ask(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, Refused> {
        self.finish_dump().await?;
        let mut bytes = Vec::new();
        let sequence = self.append(&mut bytes, 0, question);
        self.send(&bytes).await?;
        loop {
            self.receive().await?;
            for message in messages(&self.received) {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                    NetlinkPayload::Error(e) => return Err(refusal(&e, message.header.flags)),
                    _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                }
            }
        }
    }

    /// All that the kernel lists for a question, as far as `pick` wants it. A table or address family that does
    /// not exist is empty.
    pub(super) async fn dump<T>(
        &mut self,
        question: &RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Refused> {
        let mut attempt = 1;
        loop {
            let (picked, whole) = self.dump_once(question.clone(), &mut pick).await?;
            if whole || attempt == DUMP_ATTEMPTS {
                return Ok(picked);
            }
            attempt += 1;
        }
    }

    async fn dump_once<T>(
        &mut self,
        question: RouteNetlinkMessage,
        pick: &mut impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<(Vec<T>, bool), Refused> {
        self.finish_dump().await?;
        let mut bytes = Vec::new();
        let sequence = self.append(&mut bytes, NLM_F_DUMP, question);
        self.send(&bytes).await?;
        // Not before: a caller that goes away while we wait to send leaves nothing to be read.
        self.unfinished = Some(sequence);
        let (mut picked, mut whole) = (Vec::new(), true);
        while self.unfinished.is_some() {
            self.receive().await?;
            for message in messages(&self.received) {
                if message.header.sequence_number != sequence {
                    continue;
                }
                whole &= message.header.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => picked.extend(pick(inner)),
                    NetlinkPayload::Done(done) => {
                        self.unfinished = None;
                        empty_if_absent(io::Error::from_raw_os_error(-done.code).into())?;
                    }
                    NetlinkPayload::Error(e) => {
                        self.unfinished = None;
                        empty_if_absent(refusal(&e, message.header.flags))?;
                    }
                    _ => {}
                }
            }
        }
        Ok((picked, whole))
    }

    /// Reads to its end a dump that nobody waits for any more.
    async fn finish_dump(&mut self) -> io::Result<()> {
        while let Some(sequence) = self.unfinished {
            self.receive().await?;
            let ends = |m: &NetlinkMessage<RouteNetlinkMessage>| {
                m.header.sequence_number == sequence
                    && matches!(m.payload, NetlinkPayload::Done(_) | NetlinkPayload::Error(_))
            };
            if messages(&self.received).any(|m| ends(&m)) {
                self.unfinished = None;
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &mut Vec<u8>, flags: u16, message: RouteNetlinkMessage) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = bytes.len();
        // Messages of a batch start at multiples of four.
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
        self.sequence
    }

    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = rtnetlink::sys::SocketAddr::new(0, 0);
        let sent = soon(|| self.socket.socket_ref().send_to(bytes, &kernel, 0)).await?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let Self { socket, received, .. } = self;
        soon(|| receive_already_here(socket, received)).await
    }
}

/// The kernel answers before a request returns, and takes each at once: there is nothing to wait for, and the driver does not
/// wait for ever for what will not come.
async fn soon<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..LOOKS {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(LOOK).await,
            done => return done,
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits for one datagram of the kernel. What other processes send is dropped.
pub(super) async fn receive(socket: &TokioSocket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(RECEIVE_BYTES);
        let from = socket.recv_from(buffer).await?;
        if from.port_number() == 0 {
            return Ok(());
        }
    }
}

/// The same without waiting: `WouldBlock` if there is none.
pub(super) fn receive_already_here(socket: &TokioSocket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(RECEIVE_BYTES);
        let (_, from) = socket.socket_ref().recv_from(buffer, 0)?;
        if from.port_number() == 0 {
            return Ok(());
        }
    }
}

/// The messages of a datagram. One that cannot be read (a newer kernel's) is left out.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    pieces(datagram).filter_map(|piece| {
        let message = NetlinkMessage::deserialize(piece);
        message.inspect_err(|error| tracing::debug!(%error, "netlink message not understood")).ok()
    })
}

fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let piece = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(piece)
    })
}

fn empty_if_absent(answer: Refused) -> Result<(), Refused> {
    match answer.errno() {
        0 | libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => Ok(()),
        _ => Err(answer),
    }
}

/// The reason stands behind the header of the request, if the flags say so (linux/netlink.h, NLMSGERR_ATTR_MSG).
fn refusal(answer: &ErrorMessage, flags: u16) -> Refused {
    const HEADER: usize = 16;
    const REASON: u16 = 1;
    let has_reason = flags & libc::NLM_F_ACK_TLVS as u16 != 0;
    let is_capped = flags & libc::NLM_F_CAPPED as u16 != 0;
    let request = NetlinkBuffer::new(answer.header.as_slice());
    let behind = match (has_reason, is_capped) {
        (false, _) => None,
        (true, true) => answer.header.get(HEADER..),
        (true, false) if answer.header.len() < HEADER => None,
        (true, false) => answer.header.get((request.length() as usize).next_multiple_of(4)..),
    };
    let reason = behind.and_then(|tail| {
        let mut attributes = NlasIterator::new(tail).flatten();
        let text = attributes.find(|a| a.kind() == REASON)?;
        let text = String::from_utf8_lossy(text.value());
        Some(text.trim_end_matches('\0').to_owned())
    });
    Refused { error: answer.to_io(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_that_is_cut_or_lies_about_its_length_yields_what_is_whole() {
        let mut ack = vec![0; 36];
        ack[0] = 36;
        ack[4] = 2; // NLMSG_ERROR
        ack[8] = 9;
        assert_eq!(messages(&ack).count(), 1);
        let mut two = [ack.clone(), ack.clone()].concat();
        assert_eq!(messages(&two).count(), 2);
        assert_eq!(messages(&two[..71]).count(), 1);
        two[36] = 3; // shorter than its own header
        assert_eq!(messages(&two).count(), 1);
        two[36] = 200; // longer than the datagram
        assert_eq!(messages(&two).count(), 1);
        assert_eq!(messages(&[]).count(), 0);
    }

    #[test]
    fn the_kernels_reason_is_read_behind_a_capped_answer() {
        let mut answer = ErrorMessage::default();
        answer.code = std::num::NonZeroI32::new(-libc::EEXIST);
        answer.header = vec![0; 16];
        answer.header.extend([9, 0, 1, 0]);
        answer.header.extend(b"gone\0\0\0\0");
        let flags = (libc::NLM_F_CAPPED | libc::NLM_F_ACK_TLVS) as u16;
        let refused = refusal(&answer, flags);
        assert_eq!(refused.errno(), libc::EEXIST);
        assert_eq!(refused.reason.as_deref(), Some("gone"));
        assert_eq!(refusal(&answer, 0).reason, None);
    }
}
