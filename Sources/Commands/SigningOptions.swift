import ArgumentParser
import ComposefsOCI
import LinuxSystem

/// Options of commands that store objects: built-in signatures of fs-verity.
struct SigningOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Sign every object for the kernel, with this private key (PEM or DER).", valueName: "file"))
    var signKey: ByteString?

    @Option(
        help: ArgumentHelp("The key's X.509 certificate (PEM or DER); the kernel needs it in its .fs-verity keyring.", valueName: "file"))
    var signCert: ByteString?

    func validate() throws {
        guard (signKey == nil) == (signCert == nil) else { throw ValidationError("--sign-key and --sign-cert go together") }
    }

    /// Reads and tries them, before anything is stored.
    func signer(_ global: GlobalOptions) throws -> (any VeritySigner)? {
        guard let signKey, let signCert else { return nil }
        let signer = try readSigner(keyFile: signKey, certificateFile: signCert)
        if Host.veritySignatures() == .unchecked {
            global.note(
                "warning: this kernel was built without CONFIG_FS_VERITY_BUILTIN_SIGNATURES: it stores the signatures and never looks at them"
            )
        }
        return signer
    }
}
