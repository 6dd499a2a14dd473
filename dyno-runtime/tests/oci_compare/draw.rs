//! A seeded source of choices and the draft of a configuration that the dimensions add to.

use serde_json::{Value, json};

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// At most `most` different ones, in the order of `of`.
    pub fn some<T: Copy>(&mut self, of: &[T], most: usize) -> Vec<T> {
        let count = self.below(most.min(of.len()) + 1);
        let mut left = count;
        let mut picked = Vec::new();
        for (n, item) in of.iter().enumerate() {
            if self.below(of.len() - n) < left {
                picked.push(*item);
                left -= 1;
            }
        }
        picked
    }

    pub fn shuffled<T: Copy>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for n in (1..items.len()).rev() {
            items.swap(n, self.below(n + 1));
        }
        items
    }
}

/// What the host has that configurations depend on.
#[derive(Debug, Clone)]
pub struct Host {
    /// Capabilities of the bounding set, by number.
    pub capabilities: Vec<usize>,
    /// Hard limits by their RLIMIT name.
    pub limits: Vec<(&'static str, u64)>,
    /// Directory of namespaces that a container can join.
    pub namespaces: String,
    /// A whole disk.
    pub disk: Option<(u64, u64)>,
    /// Of the bundle, where it is the same for all.
    pub bundle: String,
    pub probe: String,
    /// Where control groups go.
    pub groups: String,
}

/// A configuration in the making.
#[derive(Debug)]
pub struct Draft {
    pub config: Value,
    /// What the probe is to look at.
    pub looks: Vec<String>,
    /// Arguments instead of the probe's look, if any.
    pub instead: Option<Vec<String>>,
    /// Exit status of the probe.
    pub status: u8,
    /// Uid of the container's root, outside.
    pub owner: u32,
}

impl Draft {
    pub fn new(host: &Host, id: &str) -> Self {
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": false },
            "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": [], "env": ["PATH=/bin"], "terminal": false },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": [], "cgroupsPath": format!("{}/{id}", host.groups) },
        });
        Self { config, looks: vec!["list:/".into(), "write:/".into()], instead: None, status: 0, owner: 0 }
    }

    /// What is at this JSON pointer.
    pub fn at(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        if self.config.pointer(parent).is_none() {
            self.at(parent, json!({}));
        }
        if let Some(Value::Object(object)) = self.config.pointer_mut(parent) {
            object.insert(name.into(), value);
        }
    }

    /// Adds to the list at this pointer.
    pub fn push(&mut self, pointer: &str, value: Value) {
        if self.config.pointer(pointer).is_none() {
            self.at(pointer, json!([]));
        }
        if let Some(Value::Array(list)) = self.config.pointer_mut(pointer) {
            list.push(value);
        }
    }

    pub fn look(&mut self, what: &str, path: &str) {
        let look = format!("{what}:{path}");
        if !self.looks.contains(&look) {
            self.looks.push(look);
        }
    }

    /// Whether a namespace of this kind is made for the container.
    pub fn has_new(&self, kind: &str) -> bool {
        namespace(&self.config, kind).is_some_and(|n| n.get("path").is_none())
    }

    pub fn has(&self, kind: &str) -> bool {
        namespace(&self.config, kind).is_some()
    }

    /// The configuration, with the probe as its program.
    pub fn finish(mut self) -> (Value, u32) {
        let look = || [vec!["/bin/probe".into(), "look".into(), self.status.to_string()], self.looks.clone()].concat();
        let args = self.instead.clone().unwrap_or_else(look);
        self.at("/process/args", json!(args));
        (self.config, self.owner)
    }
}

/// The entry of `linux.namespaces` of this kind.
pub fn namespace<'a>(config: &'a Value, kind: &str) -> Option<&'a Value> {
    config.pointer("/linux/namespaces")?.as_array()?.iter().find(|n| n["type"] == kind)
}
