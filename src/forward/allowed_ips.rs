//! Longest prefix → value, for IPv4 and IPv6 (cryptokey routing, paper, section 2).
//!
//! A path-compressed binary tree for each family: a node holds a whole prefix, so a look-up visits only the
//! places where prefixes fork. It is built in one go from sorted prefixes, parents first, so that a walk goes
//! forward through the arena.

use std::net::IpAddr;

use ipnet::IpNet;

#[cfg(test)]
mod tests;

/// An immutable look-up table; the upper half builds a new one when prefixes change.
pub struct AllowedIps<T> {
    v4: Tree<u32>,
    v6: Tree<u128>,
    values: Vec<T>,
}

impl<T> AllowedIps<T> {
    /// From prefixes (host bits are ignored); of two equal ones the last stands. 130,000 take milliseconds.
    pub fn build(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (prefix, value) in prefixes {
            let at = u32::try_from(values.len()).expect("fewer than 2^32 prefixes");
            match prefix {
                IpNet::V4(net) => v4.push(Prefix::new(net.addr().to_bits(), net.prefix_len(), at)),
                IpNet::V6(net) => v6.push(Prefix::new(net.addr().to_bits(), net.prefix_len(), at)),
            }
            values.push(value);
        }
        Self { v4: Tree::build(v4), v6: Tree::build(v6), values }
    }

    /// The value of the longest prefix that holds `address`, and that prefix's length. An IPv4-mapped IPv6
    /// address is an IPv6 address: no IPv4 prefix holds it.
    pub fn find(&self, address: IpAddr) -> Option<(&T, u8)> {
        let (value, length) = match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits())?,
            IpAddr::V6(address) => self.v6.find(address.to_bits())?,
        };
        Some((&self.values[value as usize], length))
    }
}

impl<T> Default for AllowedIps<T> {
    /// Holds no address.
    fn default() -> Self {
        Self::build([])
    }
}

/// An address as a number.
trait Bits: Copy + Ord {
    const WIDTH: u8;
    /// With all but the first `length` bits zero.
    fn masked(self, length: u8) -> Self;
    /// How many leading bits both share.
    fn common(self, other: Self) -> u8;
    /// The bit at `place`, counted from the most significant one.
    fn bit(self, place: u8) -> bool;
}

macro_rules! bits {
    ($number:ty) => {
        impl Bits for $number {
            const WIDTH: u8 = <$number>::BITS as u8;
            fn masked(self, length: u8) -> Self {
                self & !<$number>::MAX.checked_shr(length.into()).unwrap_or(0)
            }
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
            fn bit(self, place: u8) -> bool {
                self >> (Self::WIDTH - 1 - place) & 1 == 1
            }
        }
    };
}
bits!(u32);
bits!(u128);

/// The first `length` bits of `bits`, the rest is zero; `value`: an index into the values, or [`NONE`].
#[derive(Clone, Copy)]
struct Prefix<B> {
    bits: B,
    length: u8,
    value: u32,
}

impl<B: Bits> Prefix<B> {
    fn new(bits: B, length: u8, value: u32) -> Self {
        Self { bits: bits.masked(length), length, value }
    }
}

/// No child, or no value.
const NONE: u32 = u32::MAX;

struct Node<B> {
    prefix: Prefix<B>,
    /// By the bit behind the prefix.
    children: [u32; 2],
}

struct Tree<B> {
    /// The root is the first; each node's prefix holds those of its children.
    nodes: Vec<Node<B>>,
}

impl<B: Bits> Tree<B> {
    fn build(mut prefixes: Vec<Prefix<B>>) -> Self {
        // Shorter before longer where they begin alike: what holds others stands before them.
        prefixes.sort_unstable_by_key(|prefix| (prefix.bits, prefix.length, prefix.value));
        prefixes.reverse();
        prefixes.dedup_by_key(|prefix| (prefix.bits, prefix.length));
        prefixes.reverse();
        let mut tree = Self { nodes: Vec::with_capacity(2 * prefixes.len()) };
        tree.grow(&prefixes);
        tree.nodes.shrink_to_fit();
        tree
    }

    /// Adds the tree of these sorted prefixes; recursion is bounded by the address's width.
    fn grow(&mut self, prefixes: &[Prefix<B>]) -> u32 {
        let ([first, rest @ ..], Some(last)) = (prefixes, prefixes.last()) else {
            return NONE;
        };
        // What the first and the last share, all share.
        let shared = first.bits.common(last.bits);
        let (root, below) = if shared >= first.length {
            (*first, rest)
        } else {
            (Prefix::new(first.bits, shared, NONE), prefixes)
        };
        let at = self.nodes.len();
        self.nodes.push(Node { prefix: root, children: [NONE; 2] });
        if !below.is_empty() {
            let (zeros, ones) = below.split_at(below.partition_point(|prefix| !prefix.bits.bit(root.length)));
            self.nodes[at].children = [self.grow(zeros), self.grow(ones)];
        }
        u32::try_from(at).expect("fewer than 2^31 prefixes make fewer than 2^32 nodes")
    }

    /// Value and length of the longest prefix that holds `address`.
    fn find(&self, address: B) -> Option<(u32, u8)> {
        let mut found = None;
        let mut node = self.nodes.first();
        while let Some(Node { prefix, children }) = node {
            if prefix.bits.common(address) < prefix.length {
                break;
            }
            if prefix.value != NONE {
                found = Some((prefix.value, prefix.length));
            }
            if prefix.length == B::WIDTH {
                break;
            }
            node = self.nodes.get(children[usize::from(address.bit(prefix.length))] as usize);
        }
        found
    }
}
