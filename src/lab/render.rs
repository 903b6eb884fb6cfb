//! The page as text: what was measured, told to somebody who never heard of a TUN.

use std::{fmt::Write, time::Duration};

use super::{
    page::{Page, Tunnel},
    stations::{Cell, Row, Station, Traveller, Walk, address},
};

/// No line is longer.
pub(super) const WIDTH: usize = 100;

impl Page {
    /// The page, lines of at most 100 characters; with colours for a terminal if asked.
    pub fn render(&self, colours: bool) -> String {
        let mut text = Text { out: String::new(), colours };
        self.opening(&mut text);
        self.forth(&mut text);
        self.back(&mut text);
        self.sizes(&mut text);
        self.secrecy(&mut text);
        self.handshake(&mut text);
        self.closing(&mut text);
        text.out
    }

    fn opening(&self, text: &mut Text) {
        let (left, right) = (&self.left, &self.right);
        text.heading("Why a packet walks twice");
        text.paragraph(&format!(
            "Two hosts were made on this machine, {} and {}. A cable joins their devices eth0 ({} and {}). On \
             each host runs a vpnd, and together they join the hosts a second time: by a tunnel between their \
             devices vpn0 ({} and {}).",
            left.name, right.name, address(&left.outer), address(&right.outer), left.inner, right.inner
        ));
        text.paragraph(
            "A program that uses the tunnel notices nothing. Its packet goes through the kernel as always and \
             leaves by vpn0. But vpn0 is not hardware: what leaves by it is handed to vpnd, a program too. vpnd \
             encrypts it and sends the result to the other vpnd, in a UDP packet of its own. And as that is a \
             packet that a program sends, it goes through the same kernel, from the top, once more. Below, the \
             first walk is called inner, the second outer; on the other host both are walked in reverse.",
        );
        text.paragraph(&format!(
            "The numbers are those of the kernel and of vpnd, counted while one ping went from left to right \
             and its answer came back, and then while {} bytes went the same way by TCP.",
            grouped(self.transfer.bytes)
        ));
        if let Some(reason) = &self.no_netfilter {
            text.paragraph(&format!(
                "Without counters of netfilter ({reason}): at OUTPUT, POSTROUTING, PREROUTING and INPUT the \
                 packets pass all the same, but nobody counted them."
            ));
        }
    }

    fn forth(&self, text: &mut Text) {
        text.table(
            &format!("{}: the packet goes out", self.left.name),
            &Traveller::left(self).outbound(),
            true,
        );
        text.table(
            &format!("{}: the packet comes in", self.right.name),
            &Traveller::right(self).inbound(),
            true,
        );
        let left = &self.bulk.left;
        if left.walks.is_some_and(|walks| walks.inner.output.packets < left.tun.tx_packets) {
            text.paragraph(
                "The transfer counts fewer packets at the hooks than at the devices: the kernel carries TCP in \
                 pieces of up to 64 KB as far as it can, and cuts them into packets of the device's size last.",
            );
        }
        self.losses(text);
    }

    /// Buffers overflow where a sender is faster than a receiver: then the columns of the transfer differ.
    fn losses(&self, text: &mut Text) {
        let lost = self.bulk.left.tunnel.sealed.saturating_sub(self.bulk.right.tunnel.opened);
        if lost > 0 {
            text.paragraph(&format!(
                "Of the transfer {} packets were lost between the two vpnds, where a burst was larger than a \
                 buffer. TCP noticed and sent them again: that is its work, and none of the tunnel's.",
                grouped(lost)
            ));
        }
    }

    fn back(&self, text: &mut Text) {
        let (left, right) = (Traveller::left(self).answering(), Traveller::right(self).answering());
        text.heading("The answer takes the same way back");
        text.paragraph(
            "Both answers are the kernel's own, in an application's place: to the ping its echo, and in the \
             columns of the transfer TCP's acknowledgements.",
        );
        text.table(&format!("{}: the answer goes out", self.right.name), &right.outbound(), false);
        text.table(&format!("{}: the answer comes in", self.left.name), &left.inbound(), false);
    }

    fn sizes(&self, text: &mut Text) {
        let left = &self.ping.left;
        let hooks = |at: fn(&super::netfilter::Walks) -> u64| left.walks.as_ref().map(at);
        let inner = self.ping_written + 20;
        let padding = inner.next_multiple_of(16) - inner;
        let parts = [
            ("what the program wrote: ICMP header and payload", self.ping_written, None),
            (
                "IPv4 header of the inner packet",
                20,
                hooks(|w| w.inner.output.bytes).or(Some(left.tun.tx_bytes)),
            ),
            ("padding to a multiple of 16: the exact length is nobody's business", padding, None),
            ("WireGuard header: type, receiver, number of the packet", 16, None),
            (
                "authentication tag: proves who sent it, and that nobody altered it",
                16,
                Some(left.tunnel.sealed_bytes),
            ),
            ("UDP header", 8, None),
            ("IPv4 header of the outer packet", 20, hooks(|w| w.outer.output.bytes)),
            ("Ethernet header", 14, Some(left.wire.tx_bytes)),
        ];
        text.heading("What the ping weighs on the way");
        text.line(&format!("  {:<68}{:>9}{:>9}{:>10}", "", "bytes", "sum", "counted"));
        let mut sum = 0;
        for (what, bytes, counted) in parts {
            sum += bytes;
            let sign = if sum == bytes { " " } else { "+" };
            let counted = counted.map(grouped).unwrap_or_default();
            text.line(&format!("{sign} {what:<68}{bytes:>9}{sum:>9}{counted:>10}"));
        }
        text.blank();
    }

    fn secrecy(&self, text: &mut Text) {
        text.heading("Who can read it");
        let listener = match &self.listener {
            Ok(listener) => listener,
            Err(reason) => return text.paragraph(&format!("Nobody listened on the devices: {reason}.")),
        };
        text.paragraph(&format!(
            "The ping's payload says \"vpnd-lab\" over and over. Somebody who listened on the left host saw these \
             words on vpn0 in {} of {} packets, and on eth0 in {} of {}.",
            listener.tun.matching, listener.tun.frames, listener.wire.matching, listener.wire.frames
        ));
    }

    fn handshake(&self, text: &mut Text) {
        // What the first ping moved more than the counted one, which found a session.
        let more = self.first - self.ping.left.tunnel;
        text.heading("Before all that: the handshake");
        text.paragraph(&format!(
            "The very first ping found no session: vpnd kept it back, sent {} bytes more than for the ping above, \
             and received {} more. {}",
            more.sealed_bytes,
            more.opened_bytes,
            handshake_story(more)
        ));
    }

    fn closing(&self, text: &mut Text) {
        text.heading("What it came to");
        let v6 = match self.rtt_v6 {
            Some(rtt) => format!("over IPv6 in {}", milliseconds(rtt)),
            None => "over IPv6 NOT AT ALL".to_owned(),
        };
        let intact = if self.transfer.intact { "every byte as it was sent" } else { "ALTERED ON THE WAY" };
        text.paragraph(&format!(
            "The ping was answered in {}, {v6}. The transfer took {:.2} s ({} Mbit/s), {intact}.",
            milliseconds(self.rtt),
            self.transfer.seconds,
            grouped(self.transfer.megabits_per_second() as u64)
        ));
        text.paragraph(&format!(
            "So each packet is in the kernel twice on each host: once as what it is, once as what carries it. Much \
             follows from that. A firewall can allow the one and drop the other, and must allow both. Routes \
             decide twice, and the second decision must not lead back into the tunnel. And as {} bytes are added \
             under way, a packet that shall fit the wire must be smaller inside: hence vpn0's MTU of 1420 where \
             eth0 has 1500 (60 bytes around an IPv4 packet, 80 around IPv6).",
            self.ping.left.tunnel.sealed_bytes.saturating_sub(self.ping.left.tun.tx_bytes) + 28
        ));
    }
}

fn handshake_story(more: Tunnel) -> String {
    if (more.sealed_bytes, more.opened_bytes) == (148, 92) {
        "That is one handshake: an initiation of 148 bytes and a response of 92. From these two messages both \
         sides calculated the session's keys, which were never sent."
            .to_owned()
    } else {
        "A handshake is an initiation of 148 bytes and a response of 92; from these two messages both sides \
         calculate the session's keys, which are never sent. The rest was repeated, or kept the session alive."
            .to_owned()
    }
}

/// Lines, and what makes them readable.
struct Text {
    out: String,
    colours: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";

impl Text {
    fn heading(&mut self, title: &str) {
        self.styled(BOLD, title);
        self.styled(DIM, &"─".repeat(title.chars().count()));
    }

    fn paragraph(&mut self, words: &str) {
        self.wrapped(words, "", None);
        self.blank();
    }

    fn table(&mut self, title: &str, stations: &[Station], told: bool) {
        self.styled(BOLD, title);
        self.styled(DIM, &format!("{:>63}{:>30}", "one ping", "the transfer"));
        self.styled(DIM, &format!("{:>52}{:>11}{:>15}{:>15}", "packets", "bytes", "packets", "bytes"));
        for (number, station) in stations.iter().enumerate() {
            for (line, row) in station.rows.iter().enumerate() {
                let number = if line == 0 { (number + 1).to_string() } else { String::new() };
                self.styled(colour(station.walk), &entry(&number, station.walk, row));
            }
            if told {
                self.wrapped(&station.story, "      ", Some(DIM));
            }
        }
        self.blank();
    }

    fn wrapped(&mut self, words: &str, indent: &str, style: Option<&str>) {
        let mut line = indent.to_owned();
        for word in words.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.maybe_styled(style, &line);
                line = indent.to_owned();
            }
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.maybe_styled(style, &line);
    }

    fn maybe_styled(&mut self, style: Option<&str>, line: &str) {
        match style {
            Some(style) => self.styled(style, line),
            None => self.line(line),
        }
    }

    fn styled(&mut self, style: &str, line: &str) {
        if self.colours {
            let _ = writeln!(self.out, "\x1b[{style}m{}\x1b[0m", line.trim_end()); // a String takes all
        } else {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn blank(&mut self) {
        self.out.push('\n');
    }
}

fn entry(number: &str, walk: Walk, row: &Row) -> String {
    let name = match walk {
        Walk::Inner => "inner",
        Walk::Program => "",
        Walk::Outer => "outer",
    };
    let start = format!("{number:>3}   {:<28}{name:<8}", row.label);
    match &row.answer {
        Some(answer) => format!("{start}   {answer}"),
        None => format!("{start}{}{}", pair(row.ping, 13, 11), pair(row.bulk, 15, 15)),
    }
}

fn pair(cell: Cell, packets: usize, bytes: usize) -> String {
    let shown = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), grouped);
    format!("{:>packets$}{:>bytes$}", shown(cell.packets), shown(cell.bytes))
}

fn colour(walk: Walk) -> &'static str {
    match walk {
        Walk::Inner => "36",
        Walk::Program => BOLD,
        Walk::Outer => "33",
    }
}

/// 1234567 as 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests;
