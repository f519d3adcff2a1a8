package import ArgumentParser
package import ComposefsBytes
package import ComposefsOCI

/// The option of commands that fetch images from elsewhere: which images the host accepts.
package struct SignaturePolicyArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Signature policy, instead of ~/.config/containers/policy.json or /etc/containers/policy.json: which images are accepted, and which signatures "
                + "they need.", valueName: "path"), completion: .file())
    package var signaturePolicy: ByteString?

    package init() {}

    /// Reads the policy and its keys, before the process is confined; nil if the host has none.
    package func policy() throws -> LoadedPolicy? { try LoadedPolicy.ofHost(signaturePolicy) }
}
