import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct Metrics: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics", abstract: "Print figures of the repository in the text format of Prometheus.",
        discussion: """
            For the textfile collector of the node exporter, or another program that reads this format. The last runs of fsck, prune and pull are \
            those of the units of systemd in this package, which leave a note in the state directory; a run by hand leaves none.
            """)

    @Option(
        help: ArgumentHelp("The directory in which the units note their last runs.", valueName: "dir"), completion: .directory)
    var state: ByteString = "/var/lib/cfsoci"

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let records = try store.images.records()
        let report = MetricsReport(
            path: store.repository.path, isSecure: store.repository.isSecure, usage: try store.usage(), images: records.records.count,
            unreadable: records.broken.count, runs: LastRun.all(in: state))
        for line in report.lines { try Output.print(line) }
    }
}

/// When a unit of systemd ran last, as it has noted it: `BEGUN ENDED STATUS`, times in seconds since 1970.
struct LastRun: Equatable {
    var job: String
    var begun: Int64
    var ended: Int64
    var status: Int64

    /// A note has three numbers; this is far more than that.
    private static let sizeLimit = 4096

    static func all(in directory: ByteString) -> [LastRun] {
        ["fsck", "prune", "pull"].compactMap { job in
            guard let file = try? FileDescriptor.open(directory + "/" + ByteString(job), [.readOnly, .nonBlocking]),
                let bytes = try? file.readAll(limit: sizeLimit)
            else { return nil }
            return LastRun(job: job, note: String(decoding: bytes, as: UTF8.self))
        }
    }

    /// Nil if the note is not complete. The status of a run that a signal ended is the signal's name, which is shown as -1.
    init?(job: String, note: String) {
        let parts = note.split(whereSeparator: \.isWhitespace)
        guard parts.count == 3, let begun = Int64(parts[0]), let ended = Int64(parts[1]), begun >= 0, ended >= begun else { return nil }
        self.job = job
        self.begun = begun
        self.ended = ended
        status = Int64(parts[2]) ?? -1
    }
}

/// One sample a line, each kind after a line of help and one of its type.
struct MetricsReport {
    var path: ByteString
    var isSecure: Bool
    var usage: StoreUsage
    var images: Int
    var unreadable: Int
    var runs: [LastRun]

    var lines: [String] {
        var lines: [String] = []
        func gauge(_ name: String, _ help: String, _ samples: [(labels: [(String, String)], value: String)]) {
            guard !samples.isEmpty else { return }
            lines += ["# HELP cfsoci_\(name) \(help)", "# TYPE cfsoci_\(name) gauge"]
            for sample in samples {
                let labels = sample.labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",")
                lines.append("cfsoci_\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(sample.value)")
            }
        }
        let kinds = [
            ("objects", usage.objects), ("streams", usage.streams), ("images", usage.images), ("disks", usage.disks),
            ("temporaries", usage.temporaries), ("damaged", usage.damaged),
        ]
        gauge(
            "info", "The release and the repository; always 1.",
            [([("version", Version.text), ("repository", path.description), ("verity", isSecure ? "true" : "false")], "1")])
        gauge("repository_files", "Files in the repository.", kinds.map { ([("kind", $0.0)], "\($0.1.count)") })
        gauge("repository_bytes", "Bytes that the file system has allocated.", kinds.map { ([("kind", $0.0)], "\($0.1.diskBytes)") })
        if usage.garbage != nil {
            gauge("reclaimable_bytes", "Bytes that a collection would free.", [([], "\(usage.garbageObjects.diskBytes)")])
        }
        gauge("images", "Names of images.", [([], "\(images)")])
        gauge("unreadable_images", "Names of images that cannot be read.", [([], "\(unreadable)")])
        gauge("images_in_use", "Images that are mounted, booted or deployed.", [([], "\(usage.costs.count { !$0.uses.isEmpty })")])
        gauge("last_run_timestamp_seconds", "When the unit ended last.", runs.map { ([("job", $0.job)], "\($0.ended)") })
        gauge("last_run_duration_seconds", "How long the last run took.", runs.map { ([("job", $0.job)], "\($0.ended - $0.begun)") })
        gauge(
            "last_run_exit_status", "The exit status of the last run; 0 success, -1 ended by a signal.",
            runs.map { ([("job", $0.job)], "\($0.status)") })
        return lines
    }

    /// Label values escape backslashes, quotes and line ends.
    private static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
