# A small Sinatra app: a page, a config var and a stream.
require "sinatra/base"

class App < Sinatra::Base
  get "/" do
    content_type "text/plain"
    "Hello from #{ENV.fetch("DYNO", "nowhere")}.\n"
  end

  get "/env/:name" do
    content_type "text/plain"
    "#{ENV.fetch(params[:name]) { halt 404, "not set\n" }}\n"
  end

  get "/stream" do
    content_type "text/plain"
    stream do |out|
      5.times do |i|
        out << "line #{i}\n"
        sleep 1
      end
    end
  end
end
