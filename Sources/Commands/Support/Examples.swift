/// One or two command lines for each command, which its help and its manual page show. A test parses all of them. Commands in modules of their
/// own may have them at the end of their description, after `Example: `.
enum Examples {
    /// By the command's name as it is typed after `cfsoci`.
    static let all: [String: [String]] = [
        "pull": ["cfsoci pull alpine", "cfsoci pull oci:./layout:v1 team/app:v1"],
        "push": [
            "cfsoci push team/app:v1 registry.example.org/team/app:v1",
            "cfsoci push --all-platforms alpine registry.example.org/copies/alpine:latest",
        ],
        "export": ["cfsoci export alpine oci-archive:alpine.tar"],
        "copy": [
            "cfsoci copy alpine --from /mnt/backup/composefs",
            "cfsoci copy --all docker://alpine docker://registry.example.org/alpine:latest",
        ],
        "images": ["cfsoci images --sort disk-size", "cfsoci images --format name,size"],
        "inspect": ["cfsoci inspect alpine", "cfsoci inspect alpine --config"],
        "history": ["cfsoci history alpine"],
        "diff": ["cfsoci diff team/app:v1 team/app:v2"],
        "tag": ["cfsoci tag alpine base:stable"],
        "seal": ["cfsoci seal os", "cfsoci seal os os-sealed --bootable --sign-key key.pem --sign-cert certificate.pem"],
        "untag": ["cfsoci untag base:stable"],
        "rm": ["cfsoci rm alpine"],
        "referrers list": ["cfsoci referrers list team/app:v1 --long"],
        "referrers add": ["cfsoci referrers add team/app:v1 --artifact-type application/spdx+json --file sbom.json"],
        "referrers remove": ["cfsoci referrers remove team/app:v1 sha256:2af772b07fe92ca6e2e74e7df9cc6ae70cb671cd087e5d9130486dac5797de85"],
        "login": ["cfsoci login registry.example.org", "cfsoci login -u me --password-stdin registry.example.org < token"],
        "logout": ["cfsoci logout registry.example.org"],
        "ls": ["cfsoci ls alpine /etc", "cfsoci ls -lR alpine"],
        "cat": ["cfsoci cat alpine /etc/os-release"],
        "layer": ["cfsoci layer sha256:2af772b07fe92ca6e2e74e7df9cc6ae70cb671cd087e5d9130486dac5797de85 > layer.tar"],
        "dump": ["cfsoci dump alpine"],
        "compute-id": ["cfsoci compute-id alpine", "cfsoci compute-id --path ./rootfs"],
        "mount": ["cfsoci mount alpine /mnt", "cfsoci mount alpine /mnt --upperdir /srv/upper --workdir /srv/work"],
        "umount": ["cfsoci umount /mnt"],
        "boot image": ["cfsoci boot image debian"],
        "boot karg": ["cfsoci boot karg debian"],
        "init": ["cfsoci init --algorithm fsverity-sha256-12 /var/lib/composefs"],
        "info": ["cfsoci info"],
        "df": ["cfsoci df"],
        "fsck": ["cfsoci fsck", "cfsoci fsck --repair alpine"],
        "gc": ["cfsoci gc --dry-run"],
        "prune": ["cfsoci prune", "cfsoci prune --older-than 4w --keep 3 --yes"],
        "upgrade": ["cfsoci upgrade"],
        "features": ["cfsoci features"],
        "metrics": ["cfsoci metrics > /var/lib/prometheus/node-exporter/cfsoci.prom"],
        "version": ["cfsoci version --json"],
        "import-layer": ["cfsoci import-layer sha256:2af772b07fe92ca6e2e74e7df9cc6ae70cb671cd087e5d9130486dac5797de85 < layer.tar"],
        "create-image": ["cfsoci create-image ./rootfs team/base"],
        "create-dumpfile": ["cfsoci create-dumpfile ./rootfs"],
        "image-objects": ["cfsoci image-objects team/base"],
        "stream cat": ["cfsoci stream cat refs/oci/alpine"],
    ]

    /// The examples of the command whose help begins so: its usage line names it.
    static func of(help: String) -> [String] {
        guard let usage = help.split(separator: "\n").first(where: { $0.hasPrefix("USAGE: cfsoci ") }) else { return [] }
        let words = usage.split(separator: " ").dropFirst(2).prefix { !$0.hasPrefix("[") && !$0.hasPrefix("<") && !$0.hasPrefix("-") }
        return all[words.joined(separator: " ")] ?? []
    }
}
