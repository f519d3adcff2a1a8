package import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTOML

/// What is mounted on the directories of the root file system: `setup-root-conf.toml` of composefs-rs.
///
///     [root]
///     transient = false     # true: changes to / go to memory
///     [etc]
///     mount = "overlay"     # none, bind, overlay, transient
///     [var]
///     mount = "bind"
///
/// `transient = true` in `[etc]` and `[var]` stands for `mount = "transient"`; `mount` takes precedence.
package struct SetupRootConfiguration: Equatable {
    static let path: ByteString = "/usr/lib/composefs/setup-root-conf.toml"
    /// The largest file that is read.
    static let configurationLimit = 1 << 20

    /// What is mounted on a directory.
    package enum Kind: String, CaseIterable {
        /// Nothing: the image's directory, which is read-only.
        case none
        /// The directory of the deployment.
        case bind
        /// The image's directory, with changes in `upper` of the deployment's directory.
        case overlay
        /// The image's directory, with changes in memory.
        case transient
    }

    package var isRootTransient = false
    package var etc = Kind.overlay
    package var `var` = Kind.bind
    /// Keys that are unknown, each with its line.
    package var warnings: [String] = []

    init() {}

    /// The file's settings. Those of the defaults if there is no such file.
    static func read(at path: ByteString) throws(Refusal) -> SetupRootConfiguration {
        let bytes: [UInt8]
        do throws(SystemError) {
            // Not blocking: a FIFO of this name must not stop the boot without a word.
            guard let file = try FileDescriptor.currentDirectory.openIfPresent(at: path, [.readOnly, .nonBlocking]) else {
                return SetupRootConfiguration()
            }
            bytes = try file.readAll(limit: configurationLimit)
        } catch {
            throw Refusal("the configuration cannot be read: \(error)")
        }
        return try SetupRootConfiguration(parsing: bytes, name: path)
    }

    /// - Parameter name: what messages call the file.
    package init(parsing bytes: [UInt8], name: ByteString) throws(Refusal) {
        let root: TOMLValue
        do throws(TOMLError) {
            root = try TOML.parse(bytes)
        } catch {
            throw Refusal("\(name):\(error.line): \(error.reason)")
        }
        func refused(_ value: TOMLValue, _ key: String, _ expected: String) -> Refusal {
            Refusal("\(name):\(value.line): \(key) must be \(expected)")
        }
        func table(_ key: String) throws(Refusal) -> [String: TOMLValue] {
            guard let value = root[key] else { return [:] }
            guard let table = value.table else { throw refused(value, key, "a table") }
            return table
        }
        func flag(_ key: String, in section: String) throws(Refusal) -> Bool {
            guard let value = try table(section)[key] else { return false }
            guard let flag = value.boolean else { throw refused(value, "\(section).\(key)", "true or false") }
            return flag
        }
        func kind(_ section: String, otherwise: Kind) throws(Refusal) -> Kind {
            let isTransient = try flag("transient", in: section)
            guard let value = try table(section)["mount"] else { return isTransient ? .transient : otherwise }
            guard let kind = value.string.flatMap(Kind.init(rawValue:)) else {
                throw refused(value, "\(section).mount", "one of " + Kind.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", "))
            }
            return kind
        }
        isRootTransient = try flag("transient", in: "root")
        etc = try kind("etc", otherwise: .overlay)
        `var` = try kind("var", otherwise: .bind)

        let known = ["root": ["transient"], "etc": ["mount", "transient"], "var": ["mount", "transient"]]
        var unknown: [(line: Int, key: String)] = []
        for (key, value) in root.table ?? [:] {
            guard let keys = known[key] else {
                unknown.append((value.line, key))
                continue
            }
            for (member, value) in value.table ?? [:] where !keys.contains(member) { unknown.append((value.line, "\(key).\(member)")) }
        }
        warnings = unknown.sorted { ($0.line, $0.key) < ($1.line, $1.key) }.map {
            "\(name):\($0.line): the key \(printable($0.key, limit: 80)) is unknown and has no effect"
        }
    }
}
