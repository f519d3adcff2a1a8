public import ComposefsBytes
internal import ComposefsLinuxSystem
public import ComposefsSignaturePolicy

extension LoadedPolicy {
    /// Reads the signature policy of this host and its user, and the files with keys that it names (containers-policy.json(5)): the first of
    /// `$HOME/.config/containers/policy.json`, `/etc/containers/policy.json` and `/usr/share/containers/policy.json` that exists.
    ///
    /// A program that confines itself reads it before.
    ///
    /// - Parameter file: another policy, which must exist; nil for that of the host.
    /// - Returns: nil if the host has no policy.
    /// - Throws: `SignaturePolicyError` if the policy is not valid, `SystemError` if it cannot be read.
    public static func ofHost(_ file: ByteString? = nil) throws -> LoadedPolicy? { try ofHost(file, .ofProcess) }

    static func ofHost(_ file: ByteString?, _ environment: Environment) throws -> LoadedPolicy? {
        if let file { return try read(file) }
        for path in ConfigurationPaths(environment).signaturePolicies where try exists(path) {
            do { return try read(path) } catch let error as SystemError where error.isMissing { continue }
        }
        return nil
    }

    /// Whether a policy exists. A home directory that this user may not search is another user's, as after sudo(8): what it has is not looked
    /// for, as by containers/image.
    private static func exists(_ path: ByteString) throws -> Bool {
        do throws(SystemError) {
            return try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true) != nil
        } catch {
            guard error.isMissing || error.errno == .accessDenied else { throw error }
            return false
        }
    }

    private static func read(_ path: ByteString) throws -> LoadedPolicy {
        // One byte more than is allowed shows that there are too many.
        let bytes = try FileDescriptor.open(path, .readOnly).readAll(limit: ImagePolicy.sizeLimit + 1)
        return try LoadedPolicy(file: path, parsing: bytes, readKey: readKey)
    }

    private static let keyLimit = 1 << 20

    private static func readKey(_ path: ByteString) -> KeyFile {
        do throws(SystemError) {
            let bytes = try FileDescriptor.open(path, .readOnly).readAll(limit: keyLimit + 1)
            return bytes.count > keyLimit ? .unreadable("\(path) is larger than \(keyLimit) bytes") : .content(bytes)
        } catch {
            return .unreadable("\(error)")
        }
    }
}
