//! The datagram around the packet: which way it would take, and whether it fits.

use std::net::{IpAddr, SocketAddr};

use super::{
    Answer, Decision, Direction, ExplainError, Killer, Place, Planner, Question, Tunnel, UDP, Walk, way,
};
use crate::control::schema::PeerReport;
use crate::host::fib::RouteType;

use Direction::Out;

/// Errors upon which vpnd sends again without a source (`plane/udp.rs`).
fn may_be_the_source(decision: &Decision) -> bool {
    let errno = decision.told.as_ref().err().and_then(std::io::Error::raw_os_error);
    matches!(
        errno,
        Some(
            libc::EINVAL
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EADDRNOTAVAIL
                | libc::ENODEV
                | libc::ENXIO
        )
    )
}

/// A data message's header and tag (paper, section 5.4.6), and UDP's header.
const AROUND: u32 = 16 + 16 + 8;

impl Planner<'_> {
    /// Returns the device by which the carrier leaves; none: it does not.
    pub(super) async fn carry(
        &mut self,
        tunnel: &Tunnel,
        peer: &PeerReport,
        endpoint: SocketAddr,
    ) -> Result<Option<String>, ExplainError> {
        let local = peer.local.filter(|local| local.is_ipv4() == endpoint.is_ipv4());
        let mut question = Question {
            from: local,
            mark: tunnel.status.fwmark,
            protocol: UDP,
            source_port: tunnel.status.listen_port,
            destination_port: endpoint.port(),
            ..Question::local(endpoint.ip(), tunnel.user)
        };
        let mut decided = self.fib.decide_for_socket(&question).await?;
        if let Some(local) =
            local.filter(|local| !self.is_own_address(*local) || may_be_the_source(&decided.1))
        {
            question.from = None;
            decided = self.fib.decide_for_socket(&question).await?;
            self.notes.push(format!(
                "vpnd talked to peer {} from {local}, which leads nowhere now: it would forget that address, and send \
                 without",
                peer.name
            ));
        }
        let (question, decision, first) = decided;
        self.station(Walk::Outer, Out, Place::Route);
        let mut station = self.stations.pop().expect("one was made just now");
        self.describe(&mut station, &question, &decision);
        station.facts.extend(way::asked_twice(&question, first.as_ref()));
        self.stations.push(station);
        let Ok(answer) = &decision.told else {
            let why = self.refused_by_routing(&question, &decision);
            self.die(Killer::Route, why.unwrap_or_else(|| way::unexplained(&decision)));
            return Ok(None);
        };
        if answer.kind == RouteType::Local {
            return Ok(self.stay(endpoint));
        }
        self.go(tunnel, peer, &question, &decision, answer).await
    }

    /// The peer is on this host, too.
    fn stay(&mut self, endpoint: SocketAddr) -> Option<String> {
        if let Some(last) = self.stations.last_mut() {
            last.facts.push(format!("{} is an address of this host: the peer runs here", endpoint.ip()));
        }
        self.hook(Walk::Outer, Out, Place::Output);
        self.hook(Walk::Outer, Direction::In, Place::Input);
        self.station(Walk::Outer, Direction::In, Place::Socket);
        None
    }

    async fn go(
        &mut self,
        tunnel: &Tunnel,
        peer: &PeerReport,
        question: &Question,
        decision: &Decision,
        answer: &Answer,
    ) -> Result<Option<String>, ExplainError> {
        let interface = &tunnel.status.interface;
        let device = self.device(answer.index).cloned();
        let name = self.device_name(answer.index);
        if &name == interface {
            let why = format!(
                "the carrier is led into its own tunnel: peer {}'s endpoint {} is routed to {interface}; take it out of \
                 the allowed IPs, or set a fwmark and route by it (routing_loop)",
                peer.name, question.to
            );
            self.die(Killer::Vpnd, why);
            return Ok(None);
        }
        let fact = self.too_large(tunnel, question.to, decision, answer, &name);
        if let Some(last) = self.stations.last_mut() {
            last.facts.extend(fact);
        }
        self.answers_come_back(question, answer, &name, peer).await?;
        self.hook(Walk::Outer, Out, Place::Output);
        self.hook(Walk::Outer, Out, Place::Postrouting);
        let Some(device) = device else { return Ok(None) };
        self.leave(Walk::Outer, &device, question.mark);
        Ok(device.up.then_some(device.name))
    }

    /// A full packet's carrier, and what the way takes.
    fn too_large(
        &self,
        tunnel: &Tunnel,
        endpoint: IpAddr,
        decision: &Decision,
        answer: &Answer,
        device: &str,
    ) -> Option<String> {
        let header = if endpoint.is_ipv6() { 40 } else { 20 };
        let full = u32::from(tunnel.status.mtu) + header + AROUND;
        let room = way::path_mtu(self, answer, decision.matched.as_ref())?;
        (full > room).then(|| {
            format!(
                "a full packet of {} bytes becomes a carrier of {full}, and the way by {device} takes {room}: it goes in \
                 fragments; an MTU of {} on {} would do",
                tunnel.status.mtu,
                room.saturating_sub(header + AROUND),
                tunnel.status.interface,
            )
        })
    }

    /// The peer's answers come by the carrier's device, unmarked: would they be let in?
    async fn answers_come_back(
        &mut self,
        question: &Question,
        answer: &Answer,
        device: &str,
        peer: &PeerReport,
    ) -> Result<(), ExplainError> {
        let (Some(source), false) = (answer.source, question.is_v6()) else { return Ok(()) };
        if let Some(why) = self.filtered(source, question.to, device, 0).await? {
            self.notes.push(format!("the answers of peer {} may not come in: {why}", peer.name));
        }
        Ok(())
    }
}
