// HTTPS: a certificate made on the spot, a client of OpenSSL's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fstream>

#include "base/error.h"
#include "base/temporary_directory.h"
#include "server/http_server.h"
#include "server/test_client.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;

/// Writes a key and a certificate that it signs itself.
void MakeCertificate(const std::string& certificate_file, const std::string& key_file) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, key, EVP_sha256());
  std::FILE* file = std::fopen(certificate_file.c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(key_file.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

class HttpServerTlsTest : public testing::Test {
 protected:
  HttpServerTlsTest() {
    options_.certificate = (folder_.path() / "certificate.pem").string();
    options_.private_key = (folder_.path() / "key.pem").string();
    MakeCertificate(options_.certificate, options_.private_key);
  }
  HttpServer MakeServer() {
    return HttpServer(
        options_, [](const HttpRequest&) -> std::optional<HttpResponse> { return std::nullopt; },
        [](HttpRequest& request) {
          HttpResponse response;
          response.stream = [body = request.body](const SendBytes& send) {
            send("got ");
            send(body);
          };
          return response;
        },
        [](int, std::string_view) { return std::string("error"); });
  }

  const test::TemporaryDirectory folder_;
  HttpOptions options_;
};

TEST_F(HttpServerTlsTest, AnswersOverTls) {
  HttpServer server = MakeServer();
  server.Start();
  TestClient client(server.port());
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* session = SSL_new(context);
  SSL_set_fd(session, client.socket());
  ASSERT_EQ(SSL_connect(session), 1);
  // A body larger than one TLS record comes in several.
  const std::string body(100000, 'x');
  const std::string request =
      "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" +
      body;
  ASSERT_EQ(SSL_write(session, request.data(), static_cast<int>(request.size())),
            static_cast<int>(request.size()));
  std::string received;
  char buffer[4096];
  for (int count = 0; (count = SSL_read(session, buffer, sizeof buffer)) > 0;)
    received.append(buffer, static_cast<size_t>(count));
  EXPECT_THAT(received, HasSubstr("200 OK"));
  EXPECT_THAT(received, HasSubstr("got "));
  EXPECT_GT(received.size(), body.size());
  SSL_free(session);
  SSL_CTX_free(context);
}

TEST_F(HttpServerTlsTest, WhatIsNoTlsEndsTheConnectionAndNothingElse) {
  HttpServer server = MakeServer();
  server.Start();
  TestClient client(server.port());
  client.Send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.ReceiveAll().find("200"), std::string::npos);
}

TEST_F(HttpServerTlsTest, FilesThatDoNotFitAreNamed) {
  std::ofstream(options_.private_key) << "nonsense";
  try {
    MakeServer();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("key.pem"));
  }
}

}  // namespace
}  // namespace toaster
