//! The packet itself: from a program or a device to the device that the kernel chooses for it.

use super::{
    Answer, Asked, Decision, Device, Direction, ExplainError, Killer, Place, Planner, Question, Verdict,
    Walk, owner,
};
use crate::host::fib::RouteType;
use crate::witness::decision::errno_name;

use Direction::{In, Out};

impl Planner<'_> {
    /// Returns the device by which it leaves; none: it does not.
    pub(super) async fn inner(&mut self, asked: &Asked) -> Result<Option<String>, ExplainError> {
        let question = self.question(asked)?;
        match self.device_by(asked)? {
            None => {
                self.station(Walk::Inner, Out, Place::Socket);
            }
            Some(device) => self.come_by(&device, asked),
        }
        let (question, decision, first) = self.fib.decide_for_socket(&question).await?;
        let direction = if asked.iif.is_some() { In } else { Out };
        self.station(Walk::Inner, direction, Place::Route);
        let mut station = self.stations.pop().expect("one was made just now");
        self.describe(&mut station, &question, &decision);
        station.facts.extend(super::way::asked_twice(&question, first.as_ref()));
        self.stations.push(station);
        let answer = match &decision.told {
            Ok(answer) => answer.clone(),
            Err(_) => {
                self.goes_nowhere(asked, &question, &decision).await?;
                return Ok(None);
            }
        };
        self.source = self.source.or(answer.source);
        match (answer.kind, asked.iif.is_some()) {
            (RouteType::Local, _) => {
                self.arrive(asked);
                Ok(None)
            }
            (_, true) => self.forward(asked, &question, &answer).await,
            (_, false) => {
                self.ask_again(&question, &answer).await?;
                self.hook(Walk::Inner, Out, Place::Output);
                Ok(self.go_out(&answer, asked.mark))
            }
        }
    }

    fn question(&self, asked: &Asked) -> Result<Question, ExplainError> {
        if asked.from.is_some_and(|from| from.is_ipv6() != asked.to.is_ipv6()) {
            let why = "the source (--from) and the destination are of different families".to_owned();
            return Err(ExplainError::Asked(why));
        }
        let mut question = match (self.device_by(asked)?, asked.from) {
            (None, from) => Question { from, ..Question::local(asked.to, asked.user) },
            (Some(device), Some(from)) => Question::forwarded(asked.to, from, &device.name, device.index),
            (Some(_), None) => {
                let why =
                    "a packet that comes by a device (--iif) has a source: give it with --from".to_owned();
                return Err(ExplainError::Asked(why));
            }
        };
        let (protocol, [source_port, destination_port]) = asked.protocol.parts(asked.to.is_ipv6());
        question.mark = asked.mark;
        question.protocol = protocol;
        (question.source_port, question.destination_port) = (source_port, destination_port);
        Ok(question)
    }

    /// The device by which the packet comes; none: it is of this host.
    fn device_by(&self, asked: &Asked) -> Result<Option<Device>, ExplainError> {
        match asked.iif.as_deref() {
            None => Ok(None),
            Some(name) => self.device_named(name).cloned().map(Some).ok_or_else(|| {
                ExplainError::Asked(format!("there is no device {name} in this network namespace (--iif)"))
            }),
        }
    }

    /// In by a device: another host's packet, or one that a tunnel has opened.
    fn come_by(&mut self, device: &Device, asked: &Asked) {
        let sender = self.tunnel_of(&device.name).zip(asked.from).map(|(tunnel, from)| {
            let owner = owner(&tunnel.status.peers, from);
            owner.map(|owned| (owned.peer.name.clone(), owned.prefix)).ok_or(from)
        });
        let station = self.station(Walk::Inner, In, Place::Device);
        station.device = Some(device.name.clone());
        if !device.up {
            station.facts.push(format!("{} is down: nothing comes by it now", device.name));
        }
        match sender {
            Some(Ok((peer, prefix))) => {
                station
                    .facts
                    .push(format!("vpnd lets it out of the tunnel if peer {peer} sends it, by {prefix}"));
            }
            Some(Err(from)) => {
                let why =
                    format!("no peer of {} has {from}: vpnd refuses it (source_not_allowed)", device.name);
                self.die(Killer::Vpnd, why);
            }
            None => {}
        }
        self.hook(Walk::Inner, In, Place::Prerouting);
    }

    /// To a program of this host.
    fn arrive(&mut self, asked: &Asked) {
        if let Some(last) = self.stations.last_mut() {
            last.facts.push(format!("{} is an address of this host: nothing leaves it", asked.to));
        }
        if asked.iif.is_none() {
            self.hook(Walk::Inner, Out, Place::Output);
        }
        self.hook(Walk::Inner, In, Place::Input);
        self.station(Walk::Inner, In, Place::Socket);
    }

    /// Returns the device, if the packet gets so far.
    pub(super) fn go_out(&mut self, answer: &Answer, mark: u32) -> Option<String> {
        self.hook(Walk::Inner, Out, Place::Postrouting);
        let device = self.device(answer.index).cloned()?;
        self.leave(Walk::Inner, &device, mark);
        device.up.then_some(device.name)
    }

    /// A program that connects asks twice: without a source, and then with the one that it got (IPv4).
    async fn ask_again(&mut self, first: &Question, answer: &Answer) -> Result<(), ExplainError> {
        let (None, Some(source), false) = (first.from, answer.source, first.is_v6()) else { return Ok(()) };
        let second = Question { from: Some(source), ..first.clone() };
        let decision = self.fib.decide(&second).await?;
        let differs = match &decision.told {
            Ok(then) if (then.index, then.table, then.via) == (answer.index, answer.table, answer.via) => {
                return Ok(());
            }
            Ok(then) => {
                let table =
                    then.table.map_or("no table".into(), |t| format!("table {}", super::way::table(t)));
                format!("leaves by {} ({table})", self.device_name(then.index))
            }
            Err(error) => format!("is refused ({})", errno_name(error)),
        };
        let rule = decision.rule().map(|rule| format!(" by rule \"{rule}\"")).unwrap_or_default();
        if let Some(station) = self.stations.last_mut() {
            station.facts.push(format!(
                "a program that connects first (TCP) asks a second time, now from {source}: its packet {differs}{rule}"
            ));
        }
        Ok(())
    }

    /// Routing said no.
    async fn goes_nowhere(
        &mut self,
        asked: &Asked,
        question: &Question,
        decision: &Decision,
    ) -> Result<(), ExplainError> {
        let not_ours = asked.from.filter(|from| asked.iif.is_none() && !self.is_own_address(*from));
        let why = match (not_ours, asked.from) {
            (Some(from), _) if !question.is_v6() => {
                format!("{from} is no address of this host: the kernel sends nothing from it")
            }
            (_, Some(from)) if asked.iif.is_some() => self.not_forwarded(question, decision, from).await?,
            _ => self
                .refused_by_routing(question, decision)
                .unwrap_or_else(|| super::way::unexplained(decision)),
        };
        self.die(Killer::Route, why);
        debug_assert_eq!(self.stations.last().map(|station| station.verdict), Some(Verdict::WouldNot));
        Ok(())
    }
}
