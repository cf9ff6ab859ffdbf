#include "server/open_api.h"

#include <string>

namespace toaster {
namespace {

OrderedJson Response(std::string_view description, std::string_view type, OrderedJson schema) {
  return {{"description", description}, {"content", {{type, {{"schema", std::move(schema)}}}}}};
}

OrderedJson Operation(const RouteDescription& route) {
  OrderedJson operation = {{"operationId", route.name}, {"summary", route.summary}};
  if (!route.needs_key) operation["security"] = OrderedJson::array();
  if (const size_t brace = route.path.find('{'); brace != std::string_view::npos) {
    operation["parameters"] = {
        {{"name", route.path.substr(brace + 1, route.path.size() - brace - 2)},
         {"in", "path"},
         {"required", true},
         {"schema", {{"type", "string"}}}}};
  }
  if (route.request) {
    RequestSchema request = route.request();
    operation["requestBody"] = {
        {"required", true},
        {"content",
         {{"application/json",
           {{"schema", std::move(request.schema)}, {"examples", std::move(request.examples)}}}}}};
  }
  const bool json = route.answer == "application/json";
  OrderedJson schema = json ? OrderedJson::object() : OrderedJson{{"type", "string"}};
  operation["responses"]["200"] = Response("The answer", route.answer, std::move(schema));
  if (route.streams) {
    operation["responses"]["200"]["content"]["text/event-stream"] = {
        {"schema", {{"type", "string"}}}};
  }
  operation["responses"]["default"] = {{"$ref", "#/components/responses/Error"}};
  return operation;
}

}  // namespace

OrderedJson OpenApiDocument(const std::vector<RouteDescription>& routes) {
  OrderedJson paths;
  for (const RouteDescription& route : routes) {
    const char* method = route.method == "GET" ? "get" : "post";
    paths[std::string(route.path)][method] = Operation(route);
  }
  const OrderedJson error = {{"type", "object"},
                             {"required", {"error"}},
                             {"properties",
                              {{"error",
                                {{"type", "object"},
                                 {"required", {"type", "message"}},
                                 {"properties",
                                  {{"type", {{"type", "string"}}},
                                   {"message", {{"type", "string"}}},
                                   {"param", {{"type", {"string", "null"}}}},
                                   {"code", {{"type", {"string", "null"}}}}}}}}}}};
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "toaster serve"},
        {"version", "1"},
        {"description",
         "Paths below /v1 are also there without it, and all of them below /beta and /anthropic. "
         "Fields that are not listed are left alone."}}},
      {"servers", {{{"url", "/"}}}},
      {"security",
       {OrderedJson::object(),
        {{"bearer", OrderedJson::array()}},
        {{"key", OrderedJson::array()}}}},
      {"paths", std::move(paths)},
      {"components",
       {{"securitySchemes",
         {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
          {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}}},
        {"responses",
         {{"Error", Response("What is wrong with the request, or went wrong", "application/json",
                             {{"$ref", "#/components/schemas/Error"}})}}},
        {"schemas", {{"Error", error}}}}}};
}

}  // namespace toaster
