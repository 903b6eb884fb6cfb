//! Composition: start order, the driver's loop, signals, stop order.
