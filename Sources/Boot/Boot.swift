// Boot: the tree of an image in the form that is booted.
//
// `transformForBoot` empties `/boot` and `/sysroot` and labels all files by the image's own SELinux policy (`SelinuxPolicy`, `FileContexts`).
// The patterns of the policy are PCRE2 expressions, as for libselinux: this is the only module that uses PCRE2. It does not use the network.
//
// - Resources: what an image can boot, from its stored tree.
// - Partition: a boot partition: its entries and their order, and files that become visible when they are durable.
// - Deployment: `state` beside the repository: local changes to /etc and their merge, /var, what runs and what is next; and `prepareBoot`, which
//   writes both.
