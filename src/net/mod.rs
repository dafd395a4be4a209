//! Sockets: how they are bound, shared and closed without losing a connection.

pub mod listen;
