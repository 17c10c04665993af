//! Static Pods and addons as pure functions: configuration in, object out.
