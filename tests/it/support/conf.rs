//! Writing configurations: one listener `web`, one split `shop`, and what a test adds.

use std::net::SocketAddr;

/// `@DIR@` in any text becomes the folder of the weir under test.
#[derive(Clone, Debug)]
pub struct Conf {
    top: String,
    web: String,
    routes: String,
    shop: String,
    versions: Vec<(String, u32, Vec<String>)>,
    /// More keys of versions.
    extra: Vec<(String, String)>,
    /// Endpoints with weights of their own.
    weighted: Vec<(SocketAddr, u32)>,
    scheme: &'static str,
    admin: String,
    tail: String,
}

impl Conf {
    /// A split `shop` with these versions, which gets every request of listener `web`.
    pub fn shop(versions: &[(&str, u32, &[SocketAddr])]) -> Self {
        Self {
            top: "workers = 2\n".to_owned(),
            web: "bind = \"127.0.0.1:0\"\n".to_owned(),
            routes: "[[routes]]\nsplit = \"shop\"\n".to_owned(),
            shop: String::new(),
            versions: versions.iter().map(|(name, weight, e)| ((*name).to_owned(), *weight, texts(e))).collect(),
            extra: Vec::new(),
            weighted: Vec::new(),
            scheme: "",
            admin: "bind = \"127.0.0.1:0\"\n".to_owned(),
            tail: String::new(),
        }
    }

    /// One version `v1` with one endpoint.
    pub fn one(endpoint: SocketAddr) -> Self {
        Self::shop(&[("v1", 1, &[endpoint])])
    }

    /// Versions `v1` and `v2`, one endpoint each.
    pub fn two(v1: (u32, SocketAddr), v2: (u32, SocketAddr)) -> Self {
        Self::shop(&[("v1", v1.0, &[v1.1]), ("v2", v2.0, &[v2.1])])
    }

    /// One version `v1` with endpoints as they are written in the file: paths, names.
    pub fn at(endpoints: &[&str]) -> Self {
        let mut conf = Self::shop(&[("v1", 1, &[])]);
        conf.versions[0].2 = texts(endpoints);
        conf
    }

    /// Adds a line at the top level.
    pub fn top(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// Sets the number of workers (2 otherwise).
    pub fn workers(mut self, workers: usize) -> Self {
        self.top = self.top.replace("workers = 2\n", &format!("workers = {workers}\n"));
        self
    }

    /// Adds a line to `[listeners.web]`.
    pub fn web(mut self, line: &str) -> Self {
        self.web += &format!("{line}\n");
        self
    }

    /// Binds `web` to this address.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.web = self.web.replace("127.0.0.1:0", &address.to_string());
        self
    }

    /// Binds the admin listener to this address.
    pub fn admin_bind(mut self, address: SocketAddr) -> Self {
        self.admin = self.admin.replace("127.0.0.1:0", &address.to_string());
        self
    }

    /// Replaces the routes.
    pub fn routes(mut self, text: &str) -> Self {
        self.routes = format!("{text}\n");
        self
    }

    /// Adds a line to `[splits.shop]`.
    pub fn split(mut self, line: &str) -> Self {
        self.shop += &format!("{line}\n");
        self
    }

    /// All endpoints speak TLS.
    pub fn https(mut self) -> Self {
        self.scheme = "https://";
        self
    }

    /// Gives an endpoint a weight.
    pub fn weigh(mut self, endpoint: SocketAddr, weight: u32) -> Self {
        self.weighted.push((endpoint, weight));
        self
    }

    /// Adds a key to one version's table; the split's own keys are `split`.
    pub fn version(mut self, name: &str, line: &str) -> Self {
        self.extra.push((name.to_owned(), line.to_owned()));
        self
    }

    /// Adds text at the end.
    pub fn tail(mut self, text: &str) -> Self {
        self.tail += &format!("{text}\n");
        self
    }

    /// The same with other weights, in the order of the versions.
    pub fn weights(&self, weights: &[u32]) -> Self {
        let mut other = self.clone();
        for ((_, weight, _), new) in other.versions.iter_mut().zip(weights) {
            *weight = *new;
        }
        other
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let Self { top, web, routes, shop, admin, tail, .. } = self;
        let mut text = format!("{top}[listeners.web]\n{web}{routes}[splits.shop]\n{shop}[splits.shop.versions]\n");
        for (name, weight, endpoints) in &self.versions {
            let endpoints: Vec<String> = endpoints.iter().map(|e| format!("{}{e}", self.scheme)).collect();
            let extra: String = self.extra.iter().filter(|(n, _)| n == name).map(|(_, l)| format!(", {l}")).collect();
            text += &format!("{name} = {{ weight = {weight}, endpoints = {endpoints:?}{extra} }}\n");
        }
        for (endpoint, weight) in &self.weighted {
            let table = format!("{{ address = \"{endpoint}\", weight = {weight} }}");
            text = text.replace(&format!("\"{endpoint}\""), &table);
        }
        text + &format!("[admin]\n{admin}state_dir = \"@DIR@/state\"\n{tail}")
    }
}

fn texts<T: ToString>(endpoints: &[T]) -> Vec<String> {
    endpoints.iter().map(ToString::to_string).collect()
}
