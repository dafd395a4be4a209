//! The whole path with a real store, real sockets and real files.
