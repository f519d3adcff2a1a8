import ComposefsBytes
import ComposefsSetupRoot
import ComposefsTOML

/// Any bytes as the configuration, and as arguments that zero bytes separate: no trap, no hang, and a refusal is one line that the kernel's log has
/// room for.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do {
        let configuration = try SetupRootConfiguration(parsing: bytes, name: "setup-root-conf.toml")
        for warning in configuration.warnings {
            check(line: warning)
        }
        let root = try TOML.parse(bytes)
        for name in ["etc", "var"] {
            guard case .some(let mount) = root[name]?["mount"]?.string else { continue }
            let kind = name == "etc" ? configuration.etc : configuration.var
            precondition(kind.rawValue == mount, "\(name) is \(kind), and the file says \(mount)")
        }
        precondition(configuration.isRootTransient == (root["root"]?["transient"]?.boolean ?? false), "another root than the file's")
    } catch let refusal as Refusal {
        check(line: refusal.line)
    } catch {
        fatalError("accepted at first: \(error)")
    }
    do {
        let arguments = try SetupRootArguments(bytes.split(separator: 0).map { ByteString($0) })
        precondition(!arguments.sysroot.isEmpty && !arguments.configuration.isEmpty, "an empty path")
        precondition(arguments.sysroot.bytes.contains { $0 != UInt8(ascii: "/") }, "the root itself")
    } catch {
        _ = error.description
    }
    return 0
}

private func check(line: String) {
    precondition(!line.utf8.contains(UInt8(ascii: "\n")) && line.utf8.count <= 900, "more than a line: \(line)")
}
