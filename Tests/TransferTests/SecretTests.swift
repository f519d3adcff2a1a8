import ComposefsBytes
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// Users and passwords in references do not appear in any message.
@Suite struct SecretTests {
    @Test(arguments: [
        ("user:secret@host/name:1", "***@host/name:1"), ("docker://user:secret@host/name", "docker://***@host/name"),
        ("docker://secret@host/name", "docker://***@host/name"), ("https://user:secret@host/name", "https://***@host/name"),
        ("HTTPS://user:secret@host/x?sig=secret", "HTTPS://***@host/x"), ("user:sec/ret@host/name", "***@host/name"),
        ("secret@host/name:1", "***@host/name:1"),
        ("user:sec@ret@host:5000/name", "***@host:5000/name"), ("user:secret@host/name@sha256:12", "***@host/name@sha256:12"),
        ("docker://user:secret@host/name:1@sha256:12", "docker://***@host/name:1@sha256:12"),
    ])
    func areHidden(_ text: String, _ shown: String) {
        #expect(hidingSecrets(text) == shown)
        let said = refusal { _ = try parseReference(text) }
        #expect(said != nil && said?.contains("sec") == false && said?.contains("ret@") == false)
        #expect("\(ImageStoreError.noSuchImage(ByteString(text)))".contains("\"\(shown)\""))
    }

    @Test(arguments: [
        "alpine:3", "host:5000/name:1@sha256:12", "alpine@sha256:12", "name@x", "oci:/a:b@c", "containers-storage:[overlay@/x+/y]a:b",
        "docker://host:5000/name@sha256:12",
    ])
    func otherTextStays(_ text: String) { #expect(hidingSecrets(text) == text) }
}
